//! The difference between two sets of connections, for a reload.

use std::sync::Arc;

use super::{ConnectionSpec, Connections};

/// The names of two sets of connections by kind of change, from [`Connections::changes`]. Each name
/// is in exactly one list, and each list is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionChanges {
    /// Connections that are only in the new set.
    pub added: Vec<String>,
    /// Connections that are only in the old set.
    pub removed: Vec<String>,
    /// Connections in both sets whose specifications differ.
    pub changed: Vec<String>,
    /// Connections in both sets whose specifications are the same.
    pub unchanged: Vec<String>,
}

impl ConnectionChanges {
    /// Whether the sets are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Connections {
    /// Compares these connections with `next`.
    ///
    /// Two specifications are the same when two things hold: their documents, including secrets,
    /// are equal after variables are replaced, and the files for TLS that they name have the same
    /// contents. A specification that was made in code is the same only as its own clones.
    ///
    /// ```
    /// use phx_proto::service::Connections;
    ///
    /// let read = |text| Connections::from_json(text, |_| None);
    /// let before = read(r#"{"connections": {
    ///     "a": {"uri": "wss://a.example.com/"}, "b": {"uri": "wss://b.example.com/"}}}"#)?;
    /// let after = read(r#"{"connections": {
    ///     "b": {"uri": "wss://b.example.com/", "vsn": "2.0.0"}, "c": {"uri": "wss://c.example.com/"}}}"#)?;
    /// let changes = before.changes(&after);
    /// assert_eq!((&*changes.added, &*changes.removed), (&["c".into()][..], &["a".into()][..]));
    /// assert_eq!(changes.unchanged, ["b"], "an explicit default is no change");
    /// # Ok::<(), phx_proto::service::ConnectionsError>(())
    /// ```
    #[must_use]
    pub fn changes(&self, next: &Self) -> ConnectionChanges {
        let mut changes = ConnectionChanges::default();
        for (name, spec) in self.iter() {
            let list = match next.get(name) {
                None => &mut changes.removed,
                Some(other) if spec.is_same(other) => &mut changes.unchanged,
                Some(_) => &mut changes.changed,
            };
            list.push(name.to_owned());
        }
        let added = next.iter().map(|(name, _)| name).filter(|name| self.get(name).is_none());
        changes.added = added.map(str::to_owned).collect();
        changes
    }
}

impl ConnectionSpec {
    /// Whether both specifications are from equal documents, secrets included, or one is a clone of
    /// the other. Files for TLS are compared by their contents once they are read, and by their
    /// names before.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let read = || self.source.is_same(&other.source);
        Arc::ptr_eq(&self.source, &other.source)
            || read() && self.config.options == other.config.options
    }
}
