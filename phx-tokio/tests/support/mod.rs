//! Code shared by the tests of the command `phx`.

#[cfg(target_os = "linux")]
pub(crate) mod process;
pub(crate) mod running;
