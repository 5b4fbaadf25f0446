//! Patterns of bus topics.

use core::fmt;

use super::names;
use super::shapes::Part;

/// A pattern of bus topics: segments separated by dots, where `*` matches any one segment and `**`
/// matches any number of segments, including none.
///
/// ```
/// use phx_proto::service::TopicPattern;
///
/// let pattern = TopicPattern::parse("jido.protocol.phoenix.*.room:lobby")?;
/// assert!(pattern.matches("jido.protocol.phoenix.backend.room:lobby"));
/// assert!(!pattern.matches("jido.protocol.phoenix.backend"));
/// assert!(TopicPattern::parse("jido.signal.**")?.matches("jido.signal.phoenix.channel.joined"));
/// # Ok::<(), phx_proto::service::PatternError>(())
/// ```
///
/// `jido` is the default prefix of bus topics, which [`Router::prefix`](super::Router::prefix) changes.
/// [`Router::can_match`](super::Router::can_match) finds patterns that no event can match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    One,
    Any,
}

/// An invalid pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid pattern segment {segment:?}: a star must stand alone, `*` for one segment and `**` \
     for any number"
)]
#[non_exhaustive]
pub struct PatternError {
    /// The invalid segment.
    pub segment: String,
}

impl TopicPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// [`PatternError`] for a star inside a segment. Such a pattern could never match, because a
    /// star in a name is percent-encoded in a bus topic.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let segment = |text: &str| match text {
            "*" => Ok(Segment::One),
            "**" => Ok(Segment::Any),
            text if text.contains('*') => Err(PatternError { segment: text.to_owned() }),
            text => Ok(Segment::Literal(text.into())),
        };
        Ok(Self { segments: text.split('.').map(segment).collect::<Result<_, _>>()? })
    }

    /// Whether the pattern matches a bus topic.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        self.matches_segments(topic.split('.').map(names::Segment::Plain))
    }

    /// Whether the pattern matches any topic of this shape.
    pub(super) fn meets(&self, shape: &[Part<'_>]) -> bool {
        // Whether the segments of the pattern up to here match the first parts of the shape, by the number
        // of these parts.
        let mut reached = vec![false; shape.len() + 1];
        reached[0] = true;
        for segment in &self.segments {
            let accepts = |part: &Part<'_>| match segment {
                Segment::Literal(literal) => part.can_be(literal),
                Segment::One | Segment::Any => true,
            };
            let before = reached.clone();
            for (at, part) in shape.iter().enumerate() {
                let from = if matches!(segment, Segment::Any) { &reached } else { &before };
                let next = from[at] && accepts(part);
                reached[at + 1] = next || matches!(segment, Segment::Any) && before[at + 1];
            }
            if !matches!(segment, Segment::Any) {
                reached[0] = false;
            }
        }
        reached[shape.len()]
    }

    /// Whether the pattern matches a topic of these segments. Allocates nothing.
    pub(super) fn matches_segments<'a>(
        &self,
        mut topic: impl Iterator<Item = names::Segment<'a>> + Clone,
    ) -> bool {
        let mut at = 0;
        // The position after the last `**`, and the topic's segments from there. When the rest does
        // not match, this `**` takes one more segment. Earlier `**` need not be retried: they
        // matched as early as possible.
        let mut last_any = None;
        loop {
            let matched = match self.segments.get(at) {
                Some(Segment::Any) => {
                    last_any = Some((at + 1, topic.clone()));
                    true
                }
                Some(Segment::One) => topic.next().is_some(),
                Some(Segment::Literal(literal)) => {
                    topic.next().is_some_and(|name| name.is(literal))
                }
                None if topic.next().is_none() => return true,
                None => false,
            };
            if matched {
                at += 1;
            } else if let Some((behind, met)) = &mut last_any {
                if met.next().is_none() {
                    return false;
                }
                (at, topic) = (*behind, met.clone());
            } else {
                return false;
            }
        }
    }
}

/// Shows the pattern as it was parsed.
impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            f.write_str(match segment {
                Segment::Literal(literal) => literal,
                Segment::One => "*",
                Segment::Any => "**",
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        TopicPattern::parse(pattern).expect("a pattern").matches(topic)
    }

    #[test]
    fn literals_and_stars_match_segments() {
        for (pattern, topic, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.b", "a", false),
            ("a", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.**", "a", true),
            ("a.**", "a.b.c", true),
            ("**", "", true),
            ("**.c", "a.b.c", true),
            ("**.c", "c", true),
            ("**.c", "c.d", false),
            ("a.**.c", "a.c", true),
            ("a.**.c", "a.b.b.c", true),
            ("a.**.c", "a.b", false),
            ("**.*", "a", true),
            ("a.b:c_d", "a.b:c_d", true),
        ] {
            assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn star_inside_segment_is_an_error() {
        for text in ["a*", "a.b*.c", "***", "*a"] {
            assert!(TopicPattern::parse(text).is_err(), "{text}");
        }
    }

    /// A slow reference implementation of matching.
    fn by_definition(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.split_first(), topic.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((&"**", rest)), _) => {
                (0..=topic.len()).any(|skipped| by_definition(rest, &topic[skipped..]))
            }
            (Some(_), None) => false,
            (Some((first, rest)), Some((name, names))) => {
                (*first == "*" || first == name) && by_definition(rest, names)
            }
        }
    }

    proptest! {
        #[test]
        fn matching_equals_its_definition(
            pattern in prop::collection::vec(prop_oneof!["[ab]", Just("*".to_owned()), Just("**".to_owned())], 1..6),
            topic in prop::collection::vec("[ab]", 1..7),
        ) {
            let (pattern, topic) = (pattern.join("."), topic.join("."));
            let (one, other): (Vec<_>, Vec<_>) =
                (pattern.split('.').collect(), topic.split('.').collect());
            prop_assert_eq!(matches(&pattern, &topic), by_definition(&one, &other));
            let shape: Vec<_> = other.iter().copied().map(Part::Exact).collect();
            let parsed = TopicPattern::parse(&pattern).expect("a pattern");
            prop_assert_eq!(parsed.meets(&shape), matches(&pattern, &topic));
            prop_assert_eq!(parsed.to_string(), pattern);
        }
    }
}
