//! Operating the pipeline: workers and their queue; scenarios, each a scratch workspace that is damaged
//! step by step and must be refused with one reason code (`ofs demo`), on the same pipeline that every
//! command runs; and the closure gate, which shows all of it in one run (`ofs closure`).

pub mod closure;
pub mod fault;
pub mod generate;
pub mod intent_new;
pub mod label_import;
pub mod mishap;
pub mod mutate;
pub mod open;
pub mod play;
pub mod request;
pub mod scenario;
pub mod seal;
pub mod submit;
pub mod untouched;
pub mod worker;
