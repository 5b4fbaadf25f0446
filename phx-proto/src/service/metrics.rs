//! Counters of connections for monitoring, as OpenMetrics text or as JSON.
//!
//! The module writes the text itself, because `prometheus-client` has no state sets and would add a
//! lock and nine crates.
//!
//! The functions are pure: they keep no state between calls. The counters are those of a client.
//! After a panic of the driver the client is replaced, so they start again at 0; after other
//! restarts they continue.
//!
//! ```
//! use phx_proto::service::metrics::{ConnectionMetrics, openmetrics};
//! use phx_proto::event::Stats;
//! use phx_proto::socket::Lifecycle;
//!
//! let backend = ConnectionMetrics::new("backend", Lifecycle::Ready, 0, Some(Stats::default()));
//! let page = openmetrics(&[backend]);
//! assert!(page.contains("phx_frames_sent_total{connection=\"backend\"} 0\n"));
//! assert!(page.ends_with("# EOF\n"));
//! ```

use core::fmt::{self, Display, Write as _};
use core::time::Duration;

use serde_json::{Map, Number, Value};

use crate::event::stats::Stats;
use crate::socket::Lifecycle;

/// The media type of [`openmetrics`], for the header `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters of one connection at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionMetrics {
    /// The name of the connection, which is the label `connection` of its samples.
    pub name: String,
    /// The state of the connection.
    pub lifecycle: Lifecycle,
    /// The number of restarts.
    pub restarts: u64,
    /// The counters of its client; `None` while the connection does not run.
    pub stats: Option<Stats>,
}

impl ConnectionMetrics {
    /// Makes the metrics of a connection.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        lifecycle: Lifecycle,
        restarts: u64,
        stats: Option<Stats>,
    ) -> Self {
        Self { name: name.into(), lifecycle, restarts, stats }
    }
}

/// A page in the OpenMetrics text format 1.0, including the final `# EOF`. Each connection name
/// must occur once.
#[must_use]
pub fn openmetrics(connections: &[ConnectionMetrics]) -> String {
    let mut page = String::new();
    let tables: Vec<_> = connections.iter().map(|one| (one, table(one))).collect();
    // OpenMetrics requires the samples of a family to be together.
    let names = table(&ConnectionMetrics::new("", Lifecycle::Ready, 0, Some(Stats::default())));
    for (index, (family, _)) in names.iter().enumerate() {
        family.describe(&mut page);
        for (connection, table) in &tables {
            for (label, value) in table[index].1.samples() {
                let Family { name, kind, .. } = family;
                let label = label.map(|(key, value)| format!(",{key}=\"{}\"", Escaped(value)));
                // Writing to a string cannot fail.
                let _ = writeln!(
                    page,
                    "{name}{}{{connection=\"{}\"{}}} {value}",
                    kind.suffix(),
                    Escaped(&connection.name),
                    label.unwrap_or_default(),
                );
            }
        }
    }
    page.push_str("# EOF\n");
    page
}

/// The same metrics as JSON: an object for each connection, with the names of the samples as keys.
/// If the samples have a further label, the value is an object with the values of that label as
/// keys.
///
/// ```
/// use phx_proto::service::metrics::{ConnectionMetrics, json};
/// use phx_proto::event::Stats;
/// use phx_proto::socket::Lifecycle;
///
/// let backend = ConnectionMetrics::new("backend", Lifecycle::Ready, 2, Some(Stats::default()));
/// let metrics = json(&[backend]);
/// assert_eq!(metrics["backend"]["phx_connection_restarts_total"], 2);
/// assert_eq!(metrics["backend"]["phx_connection_lifecycle"], "ready");
/// ```
#[must_use]
pub fn json(connections: &[ConnectionMetrics]) -> Map<String, Value> {
    let object = |connection: &ConnectionMetrics| {
        let mut object = Map::new();
        for (family, measured) in table(connection) {
            let value = match measured {
                Measured::One(Some(amount)) => amount.into(),
                Measured::One(None) => continue,
                Measured::By(_, amounts) => amounts
                    .into_iter()
                    .map(|(label, amount)| (label.to_owned(), amount.into()))
                    .collect::<Map<_, _>>()
                    .into(),
                Measured::State(lifecycle) => lifecycle.name().into(),
            };
            object.insert(format!("{}{}", family.name, family.kind.suffix()), value);
        }
        object
    };
    connections.iter().map(|one| (one.name.clone(), object(one).into())).collect()
}

/// A metric family.
struct Family {
    name: &'static str,
    kind: Kind,
    unit: Option<&'static str>,
    help: &'static str,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    StateSet,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::StateSet => "stateset",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge | Self::StateSet => "",
        }
    }
}

impl Family {
    fn describe(&self, page: &mut String) {
        let Self { name, kind, unit, help } = self;
        // Writing to a string cannot fail.
        let _ = writeln!(page, "# TYPE {name} {}", kind.name());
        if let Some(unit) = unit {
            let _ = writeln!(page, "# UNIT {name} {unit}");
        }
        let _ = writeln!(page, "# HELP {name} {help}");
    }
}

/// The samples of a family for one connection.
enum Measured {
    One(Option<Amount>),
    By(&'static str, Vec<(&'static str, Amount)>),
    State(Lifecycle),
}

type Label = Option<(&'static str, &'static str)>;

impl Measured {
    fn samples(&self) -> Vec<(Label, Amount)> {
        const STATES: [Lifecycle; 4] =
            [Lifecycle::Initializing, Lifecycle::Ready, Lifecycle::Closing, Lifecycle::Terminated];
        match self {
            Self::One(amount) => amount.iter().map(|amount| (None, *amount)).collect(),
            Self::By(key, amounts) => {
                amounts.iter().map(|(value, amount)| (Some((*key, *value)), *amount)).collect()
            }
            // The label of a state set has the same name as its family.
            Self::State(now) => STATES
                .iter()
                .map(|state| {
                    (Some((LIFECYCLE, state.name())), Amount::Count((state == now).into()))
                })
                .collect(),
        }
    }
}

const LIFECYCLE: &str = "phx_connection_lifecycle";

#[derive(Clone, Copy)]
enum Amount {
    Count(u64),
    Time(Duration),
}

impl Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Time(time) => write!(f, "{}.{:09}", time.as_secs(), time.subsec_nanos()),
        }
    }
}

impl From<Amount> for Value {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Count(count) => count.into(),
            Amount::Time(time) => {
                Number::from_f64(time.as_secs_f64()).map_or(Self::Null, Self::Number)
            }
        }
    }
}

/// Every family with its samples for a connection. The families are the same for all connections.
fn table(connection: &ConnectionMetrics) -> Vec<(Family, Measured)> {
    let ConnectionMetrics { name: _, lifecycle, restarts, stats } = connection;
    let family = |name, kind, unit, help| Family { name, kind, unit, help };
    let counter = |name, help| family(name, Kind::Counter, None, help);
    let gauge = |name, help| family(name, Kind::Gauge, None, help);
    let bytes = |name, kind, help| family(name, kind, Some("bytes"), help);
    let seconds = |name, help| family(name, Kind::Gauge, Some("seconds"), help);

    let runs = stats.is_some();
    let nothing = Stats::default();
    // Every field is named, so a new field does not compile until it is exported or left out here.
    let Stats {
        frames_out,
        bytes_out,
        frames_in,
        bytes_in,
        connections,
        failed_attempts,
        lost_connections,
        reconnects,
        messages,
        messages_not_joined,
        messages_unrouted,
        stale_frames,
        stale_inputs,
        late_replies,
        mailbox_drops,
        protocol_errors,
        queued_pushes,
        queued_bytes,
        pushes_repeated,
        pushes_in_flight,
        last_rtt,
        last_join,
        // A time of the runtime's clock has no meaning outside the process.
        last_frame_at: _,
    } = stats.as_ref().unwrap_or(&nothing);
    let count = |count: u64| Measured::One(runs.then_some(Amount::Count(count)));
    let size = |size: usize| count(u64::try_from(size).unwrap_or(u64::MAX));
    let time = |time: Option<Duration>| Measured::One(time.map(Amount::Time));
    let causes = reconnects.iter().map(|(cause, count)| (*cause, Amount::Count(*count)));

    vec![
        (
            family(LIFECYCLE, Kind::StateSet, None, "State of the connection."),
            Measured::State(*lifecycle),
        ),
        (
            counter("phx_connection_restarts", "Restarts by the supervisor."),
            Measured::One(Some(Amount::Count(*restarts))),
        ),
        (counter("phx_connections_opened", "Connections that opened."), count(*connections)),
        (
            counter("phx_connect_failures", "Attempts to connect that failed."),
            count(*failed_attempts),
        ),
        (
            counter("phx_connections_lost", "Open connections that were lost."),
            count(*lost_connections),
        ),
        (
            counter(
                "phx_reconnects",
                "Losses and failed attempts that were followed by another attempt, by cause.",
            ),
            Measured::By("cause", causes.collect()),
        ),
        (counter("phx_frames_sent", "Frames handed to the transport."), count(*frames_out)),
        (bytes("phx_sent_bytes", Kind::Counter, "Bytes of the frames sent."), count(*bytes_out)),
        (counter("phx_frames_received", "Frames received."), count(*frames_in)),
        (
            bytes("phx_received_bytes", Kind::Counter, "Bytes of the frames received."),
            count(*bytes_in),
        ),
        (counter("phx_messages", "Messages delivered."), count(*messages)),
        (
            counter("phx_messages_not_joined", "Messages for a topic that is not joined."),
            count(*messages_not_joined),
        ),
        (
            counter(
                "phx_messages_unrouted",
                "Messages on topics without a channel that no stream took.",
            ),
            count(*messages_unrouted),
        ),
        (
            counter("phx_messages_dropped", "Messages and signals that full mailboxes dropped."),
            count(*mailbox_drops),
        ),
        (
            counter("phx_stale_frames", "Frames of an earlier instance of a channel."),
            count(*stale_frames),
        ),
        (counter("phx_stale_inputs", "Inputs of an earlier connection."), count(*stale_inputs)),
        (counter("phx_late_replies", "Replies that no call waits for."), count(*late_replies)),
        (
            counter("phx_protocol_errors", "Frames that could not be decoded."),
            count(*protocol_errors),
        ),
        (
            counter(
                "phx_pushes_repeated",
                "Repeats of pushes with a key that the push queue accepted.",
            ),
            count(*pushes_repeated),
        ),
        (gauge("phx_queued_pushes", "Pushes accepted and not yet written."), size(*queued_pushes)),
        (
            bytes(
                "phx_queued_bytes",
                Kind::Gauge,
                "Bytes of the payloads and event names of queued pushes.",
            ),
            size(*queued_bytes),
        ),
        (
            gauge("phx_pushes_in_flight", "Calls written and not yet answered."),
            size(*pushes_in_flight),
        ),
        (
            seconds("phx_heartbeat_rtt_seconds", "Round-trip time of the last heartbeat."),
            time(*last_rtt),
        ),
        (
            seconds(
                "phx_join_duration_seconds",
                "Time from writing to reply of the last successful join.",
            ),
            time(*last_join),
        ),
    ]
}

/// The value of a label: `\`, `"` and line breaks escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::cause::Cause;

    fn page(connections: &[ConnectionMetrics]) -> Vec<String> {
        openmetrics(connections).lines().map(str::to_owned).collect()
    }

    #[test]
    fn families_are_grouped_and_described_once() {
        let mut stats = Stats { bytes_in: 7, ..Stats::default() };
        stats.reconnects.insert("transport_lost", 3);
        let running = ConnectionMetrics::new("a", Lifecycle::Ready, 1, Some(stats));
        let ended = ConnectionMetrics::new("b", Lifecycle::Terminated, 0, None);
        let lines = page(&[running, ended]);
        let at =
            |line: &str| lines.iter().position(|it| it == line).unwrap_or_else(|| panic!("{line}"));
        let first = at("# TYPE phx_received_bytes counter");
        assert_eq!(lines[first + 1], "# UNIT phx_received_bytes bytes");
        assert_eq!(lines[first + 2], "# HELP phx_received_bytes Bytes of the frames received.");
        assert_eq!(lines[first + 3], "phx_received_bytes_total{connection=\"a\"} 7");
        assert!(lines[first + 4].starts_with("# TYPE "), "b does not run");
        at("phx_reconnects_total{connection=\"a\",cause=\"transport_lost\"} 3");
        at("phx_connection_restarts_total{connection=\"b\"} 0");
        at("phx_connection_lifecycle{connection=\"b\",phx_connection_lifecycle=\"terminated\"} 1");
        at("phx_connection_lifecycle{connection=\"b\",phx_connection_lifecycle=\"ready\"} 0");
        assert_eq!(lines.last().map(String::as_str), Some("# EOF"));
    }

    #[test]
    fn names_are_escaped_and_times_are_exact() {
        let rtt = Some(Duration::from_nanos(1_002_003_004));
        let stats = Stats { last_rtt: rtt, ..Stats::default() };
        let odd = ConnectionMetrics::new("a\"b\\c\nd", Lifecycle::Ready, 0, Some(stats));
        let lines = page(&[odd]);
        let line = r#"phx_heartbeat_rtt_seconds{connection="a\"b\\c\nd"} 1.002003004"#;
        assert!(lines.iter().any(|it| it == line), "{lines:#?}");
        assert!(
            !lines.iter().any(|line| line.starts_with("phx_join_duration_seconds{")),
            "unknown"
        );
    }

    /// Every cause has a label.
    #[test]
    fn reconnects_are_counted_by_cause() {
        let reconnects = Cause::examples().iter().map(|cause| (cause.name(), 1)).collect();
        let stats = Stats { reconnects, ..Stats::default() };
        let lines = page(&[ConnectionMetrics::new("a", Lifecycle::Ready, 0, Some(stats))]);
        for name in Cause::NAMES {
            let sample = format!("phx_reconnects_total{{connection=\"a\",cause=\"{name}\"}} 1");
            assert!(lines.contains(&sample), "{sample}");
        }
    }

    #[test]
    fn page_without_connections_is_valid() {
        let lines = page(&[]);
        assert!(lines.iter().all(|line| line.starts_with('#')));
    }
}
