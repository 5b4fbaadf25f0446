//! Properties of the socket under random and exhaustive sequences of operations, and the corpora of the
//! fuzz targets.

#[cfg(all(feature = "deflate", feature = "service", feature = "testing"))]
mod corpus;
mod diagrams;
mod exhaustive;
mod random;

#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/ops/mod.rs"]
mod ops;
#[cfg(all(feature = "deflate", feature = "service", feature = "testing"))]
#[path = "../support/targets/mod.rs"]
mod targets;
#[cfg(all(feature = "deflate", feature = "service", feature = "testing"))]
#[path = "../support/wire/mod.rs"]
mod wire;
