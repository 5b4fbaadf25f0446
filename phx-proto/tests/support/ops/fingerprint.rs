//! A hash that is equal for two worlds only if they have the same future.

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
    /// Two worlds with the same setup have the same fingerprint only if they have the same future.
    ///
    /// The fingerprint is a hash of everything in a world, as `Debug` shows it: socket, checkers,
    /// clock and server. It leaves out the trace, which no checker reads, and what the setup decides.
    /// `Debug` omits the topics that ended on the connection: no operation asks for unrouted messages.
    /// It redacts payloads and parameters. The parameters of joins are constant if all joins of
    /// a run use the same ones. The payload of a push follows from its number, which is shown, if all
    /// pushes have the same size and are all JSON or all binary.
    ///
    /// Among a million worlds, the chance of any collision is one in 37 million.
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
