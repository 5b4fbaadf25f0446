//! Whether two worlds have the same future.

use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Write as _};
use std::hash::Hasher as _;

use super::world::World;

/// Hashes the text that `Debug` writes, without keeping it.
struct Sink(DefaultHasher);

impl fmt::Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl World {
    /// The same for two worlds that were set up alike only if they have the same future.
    ///
    /// It is the hash of everything that a world consists of, as `Debug` shows it: socket, checkers,
    /// clock and server. Left out are the trace, which nothing reads, and what the setup decides.
    /// `Debug` hides payloads and parameters. Those of joins are constant as long as all joins of a
    /// run name the same; that of a push follows from its number, which is shown, if all pushes
    /// have the same kind and size.
    ///
    /// Among a million worlds the chance that any two collide is one in thirty million.
    pub fn fingerprint(&self) -> u64 {
        let mut sink = Sink(DefaultHasher::new());
        let clock = (self.now, self.latest, self.dry, self.writable, self.timeouts_here);
        let handles = (&self.conns, &self.interests, &self.pushes, self.numbers);
        let server = (&self.sent, &self.pending);
        write!(sink, "{:?}{clock:?}{handles:?}{server:?}{:?}", self.socket, self.checkers)
            .expect("it takes everything");
        sink.0.finish()
    }
}
