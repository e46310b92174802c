//! Arrow kernels and what they need: no domain policy here, and no I/O but spilling.

pub mod exact;
pub mod float_sum;
pub mod window;
