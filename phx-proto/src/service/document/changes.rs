//! What differs between two sets of connections: what a reload has to do.

use std::sync::Arc;

use super::{ConnectionSpec, Connections};

/// The names of two sets of connections, by what became of them; from [`Connections::changes`].
/// Each name is in one of the lists, and each list is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionChanges {
    /// Only in the new set.
    pub added: Vec<String>,
    /// Only in the old one.
    pub removed: Vec<String>,
    /// In both, and not the same.
    pub changed: Vec<String>,
    /// In both, and the same.
    pub unchanged: Vec<String>,
}

impl ConnectionChanges {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Connections {
    /// What differs between these connections and `next`.
    ///
    /// Two specifications are the same when their documents say the same once their variables are
    /// filled in, secrets included, and the files for TLS that they name hold the same bytes. One
    /// that was made in code is the same as its clones and no other.
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
    /// assert_eq!(changes.unchanged, ["b"], "what is written out is the default");
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
    /// Whether both were read from documents that say the same, secrets included, or one is a clone
    /// of the other. Files for TLS count by their contents once they are read, and by their names
    /// before.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let read = || self.source.is_same(&other.source);
        Arc::ptr_eq(&self.source, &other.source)
            || read() && self.config.options == other.config.options
    }
}
