//! Operating the pipeline. So far: scenarios, each a scratch workspace that is damaged step by step and
//! must be refused with one reason code (`ofs demo`), on the same pipeline that every command runs.

pub mod fault;
pub mod generate;
pub mod mutate;
pub mod open;
pub mod play;
pub mod request;
pub mod scenario;
pub mod submit;
pub mod untouched;
pub mod worker;
