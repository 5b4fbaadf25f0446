//! The shapes of all bus topics of a router, which show whether a pattern can match any of them.

use super::names::{is_name, is_type_part};
use super::{Router, TypeScheme};
use crate::event::cause::PushOutcome;

/// The last segments of the types `phoenix.connection.…`. A test compares the lists with the signals.
const CONNECTION: &[&str] = &[
    "connecting",
    "connected",
    "connect_failed",
    "disconnected",
    "gave_up",
    "closed",
    "protocol_error",
    "warning",
    "lagged",
];

/// The last segments of the types `phoenix.channel.…`.
const CHANNEL: &[&str] = &[
    "joined",
    "resumed",
    "rejected",
    "join_timed_out",
    "errored",
    "interrupted",
    "left",
    "closed",
];

/// One segment of a shape.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// Exactly this segment.
    Exact(&'a str),
    /// One of these segments.
    OneOf(&'static [&'static str]),
    /// The percent-encoded name of a connection or a topic.
    Name,
    /// A part of the type of a message, which is made of the names of the connection, the topic or the event.
    Readable,
}

impl Part<'_> {
    /// Whether the segment can be `text`.
    pub(super) fn can_be(self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::OneOf(texts) => texts.contains(&text),
            Self::Name => is_name(text),
            Self::Readable => is_type_part(text),
        }
    }
}

/// Every shape of the router's bus topics, without the prefix.
fn shapes(scheme: TypeScheme) -> &'static [&'static [Part<'static>]] {
    use Part::{Exact, Name, OneOf, Readable};
    match scheme {
        TypeScheme::Templated => &[
            &[Exact("protocol"), Exact("phoenix"), Name],
            &[Exact("protocol"), Exact("phoenix"), Name, Name],
            &[Exact("signal"), Exact("phoenix"), Exact("connection"), OneOf(CONNECTION)],
            &[Exact("signal"), Exact("phoenix"), Exact("channel"), OneOf(CHANNEL)],
            &[Exact("signal"), Exact("phoenix"), Exact("push"), OneOf(PushOutcome::NAMES)],
            &[Exact("signal"), Exact("phoenix"), Readable, Readable, Readable],
        ],
        TypeScheme::Fixed => &[
            &[Exact("protocol"), Exact("phoenix"), Name],
            &[Exact("protocol"), Exact("phoenix"), Name, Name],
            &[
                Exact("signal"),
                Exact("jido_coder"),
                Exact("phoenix"),
                Exact("connection"),
                Exact("state"),
            ],
            &[
                Exact("signal"),
                Exact("jido_coder"),
                Exact("phoenix"),
                Exact("channel"),
                Exact("state"),
            ],
            &[Exact("signal"), Exact("jido_coder"), Exact("phoenix"), Exact("event")],
        ],
    }
}

/// Whether one of the router's shapes is accepted.
pub(super) fn any_shape(router: &Router, mut accepts: impl FnMut(&[Part<'_>]) -> bool) -> bool {
    let prefix: Vec<_> = router.prefix.split('.').map(Part::Exact).collect();
    shapes(router.scheme).iter().any(|shape| accepts(&[prefix.as_slice(), shape].concat()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::details::Details;
    use super::super::names::joined;
    use super::*;
    use crate::event::signal::Signal;

    /// The lists contain the type of every signal that is routed, and no other.
    #[test]
    fn lists_equal_the_types_of_signals() {
        let mut types: BTreeSet<String> = BTreeSet::new();
        let examples = Signal::examples();
        let details = examples.iter().filter_map(|signal| Details::of(signal.describe()));
        for details in details.chain([Details::lagged(1)]) {
            types.insert(joined(details.templated("backend").into_iter().flatten()));
        }
        for (of, names) in [("connection", CONNECTION), ("channel", CHANNEL)] {
            let prefix = format!("phoenix.{of}.");
            let found: BTreeSet<_> = types.iter().filter_map(|t| t.strip_prefix(&prefix)).collect();
            assert_eq!(found, names.iter().copied().collect(), "{of}");
        }
    }
}
