//! Containers that a measurement has earned.

pub(crate) mod deadlines;
pub(crate) mod ordered;
pub(crate) mod table;
