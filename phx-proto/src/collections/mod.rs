//! Containers that measurably outperform those of the standard library.

pub(crate) mod deadlines;
pub(crate) mod ordered;
pub(crate) mod table;
