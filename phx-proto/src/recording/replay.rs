//! Reading and replaying recordings.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use super::input::InputRecord;
use super::line::{FORMAT, Header, Line, Start, What};
use super::socket;
use crate::config::Config;
use crate::config::join_params::ParamsPanicked;
use crate::event::applied::Supplied;
use crate::socket::{Socket, Step};
use crate::time::Time;
use crate::wire::payload::Payload;

/// The maximum number of filler bytes that a replay may allocate for any recording. It is enough for a
/// message of the default [`Config::max_message_bytes`] and its reply.
const FILLER_MAX: u64 = 128 << 20;

/// The number of filler bytes by which each byte of a recording raises that maximum. The line of a frame has
/// about a hundred bytes, so this allows frames of 100 KiB on average. A recording of a few kilobytes that
/// needs a gigabyte is refused before anything is allocated.
const FILLER_PER_BYTE: u64 = 1_024;

/// A parsed recording; see [the module](super).
#[derive(Clone, Debug)]
pub struct Recording {
    version: String,
    lines: Vec<Numbered>,
}

#[derive(Clone, Debug)]
struct Numbered {
    number: usize,
    line: Line,
    /// The configuration, if the line starts a client.
    config: Option<Config>,
}

/// Why a text is not a valid recording. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The text is empty.
    #[error("line 1: the recording is empty")]
    Empty,
    /// The first line is not the header of a recording.
    #[error("line 1: not the header of a recording")]
    NotARecording,
    /// The recording has a format that this version does not support.
    #[error("line 1: unsupported format {found}: this version reads format {FORMAT}")]
    Format {
        /// The format of the recording.
        found: u32,
    },
    /// A line is invalid, for example because it is truncated.
    #[error("line {line}: {problem}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// The problem with the line.
        problem: String,
    },
}

impl RecordingError {
    /// The number of the invalid line, from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        match self {
            Self::Empty | Self::NotARecording | Self::Format { .. } => 1,
            Self::Line { line, .. } => *line,
        }
    }
}

/// The replay differs from the recording. Either this version behaves differently from the one that wrote
/// the recording, or the behaviour depends on something that is not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: the recording has `{recorded}`, the replay {}", self.replayed())]
#[non_exhaustive]
pub struct Divergence {
    /// The line of the recording, from 1.
    pub line: usize,
    /// The recorded action or result.
    pub recorded: String,
    /// The replayed action or result; `None` if there was none.
    pub replayed: Option<String>,
}

impl Divergence {
    fn replayed(&self) -> String {
        self.replayed.as_ref().map_or_else(|| "has nothing".to_owned(), |did| format!("`{did}`"))
    }
}

/// One line of a trace: `t=1500ms client#1 Joined room:lobby`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceLine {
    /// The time, on the clock of the recorded client.
    pub at: Time,
    /// The number of the client, from 1.
    pub client: u64,
    /// Whether the line is an input; otherwise it is an action or a result.
    pub is_input: bool,
    /// The text of the input, the action or the result.
    pub text: String,
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t={}ms client#{} {}", self.at.as_millis(), self.client, self.text)
    }
}

impl Recording {
    /// Parses a recording.
    ///
    /// # Errors
    ///
    /// [`RecordingError`] with the number of the invalid line.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let (_, first) = lines.next().ok_or(RecordingError::Empty)?;
        let Header { phx_recording, version } =
            serde_json::from_str(first).map_err(|_| RecordingError::NotARecording)?;
        if phx_recording != FORMAT {
            return Err(RecordingError::Format { found: phx_recording });
        }
        let mut clients = Vec::new();
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let filler_max = length.saturating_mul(FILLER_PER_BYTE).saturating_add(FILLER_MAX);
        let mut filler = 0_u64;
        let read = |(number, text): (usize, &str)| {
            let invalid = |problem| RecordingError::Line { line: number, problem };
            let line: Line =
                serde_json::from_str(text).map_err(|error| invalid(parse_problem(&error)))?;
            filler = filler.saturating_add(line.what.filler_len());
            if filler > filler_max {
                let problem = format!(
                    "the redacted payloads up to this line have {filler} bytes, more than the \
                     {filler_max} that are allowed for a recording of this size"
                );
                return Err(invalid(problem));
            }
            let known = clients.contains(&line.client);
            let config = match &line.what {
                What::Start(_) if known => {
                    return Err(invalid(format!("client {} starts a second time", line.client)));
                }
                What::Start(start) => {
                    clients.push(line.client);
                    Some(start.config.config().map_err(|error| invalid(error.to_string()))?)
                }
                _ if !known => {
                    return Err(invalid(format!("client {} has not started", line.client)));
                }
                _ => None,
            };
            Ok(Numbered { number, line, config })
        };
        let lines = lines.map(read).collect::<Result<_, _>>()?;
        Ok(Self { version, lines })
    }

    /// The version of phx-proto that wrote the recording.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Replays the recording line by line and returns its trace. The trace ends after the last line, or after
    /// the first [`Divergence`].
    ///
    /// ```
    /// use phx_proto::recording::{Recording, RecordingError};
    ///
    /// /// Prints the trace of a recording.
    /// fn print(recording: &str) -> Result<(), RecordingError> {
    ///     for line in Recording::parse(recording)?.replay() {
    ///         match line {
    ///             Ok(line) => println!("{line}"),
    ///             Err(divergence) => eprintln!("{divergence}"),
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # assert_eq!(print(""), Err(RecordingError::Empty));
    /// ```
    pub fn replay(&self) -> Replay<'_> {
        Replay { recording: self, next: 0, players: BTreeMap::new() }
    }
}

/// The message of the parser without its line number, because the parser reads one line at a time.
fn parse_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let problem = text.split(" at line ").next().unwrap_or_default();
    format!("{problem}, at column {}", error.column())
}

/// The trace of a recording, from [`Recording::replay`].
#[derive(Debug)]
#[must_use = "a replay does nothing unless it is iterated"]
pub struct Replay<'a> {
    recording: &'a Recording,
    next: usize,
    players: BTreeMap<u64, Player>,
}

/// The replay of one client.
#[derive(Debug)]
struct Player {
    socket: Socket,
    payloads: bool,
    joins: Joins,
    answer: Option<String>,
}

/// The results of join parameter functions, by the line of the join.
#[derive(Debug, Default)]
struct Joins {
    line: usize,
    results: BTreeMap<String, VecDeque<(usize, Payload)>>,
}

impl Iterator for Replay<'_> {
    type Item = Result<TraceLine, Divergence>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let numbered = self.recording.lines.get(self.next)?;
            self.next += 1;
            match self.step(numbered) {
                Ok(None) => {}
                Ok(Some(line)) => return Some(Ok(line)),
                Err(divergence) => {
                    self.next = self.recording.lines.len();
                    return Some(Err(divergence));
                }
            }
        }
    }
}

impl Replay<'_> {
    fn step(&mut self, numbered: &Numbered) -> Result<Option<TraceLine>, Divergence> {
        let Numbered { number, line: Line { client, at, what }, config } = numbered;
        let traced = |is_input, text: String| {
            // Replaces line breaks, which topics and messages of the server may contain.
            let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Some(TraceLine { at: *at, client: *client, is_input, text })
        };
        if let (What::Start(start), Some(config)) = (what, config) {
            let joins = Joins::of(*client, &self.recording.lines);
            let player = Player::new(start, config.clone(), *at, joins);
            self.players.insert(*client, player);
            let (uri, vsn) = (config.uri(), config.codec.vsn());
            return Ok(traced(true, format!("start {uri}, vsn {vsn}, seed {}", start.seed)));
        }
        // `parse` has checked that every client has started.
        let Some(player) = self.players.get_mut(client) else { return Ok(None) };
        player.joins.line = *number;
        let diverged =
            |recorded: String, replayed| Err(Divergence { line: *number, recorded, replayed });
        Ok(match what {
            What::Start(_) => None,
            What::In(input) => {
                player.apply(*at, input);
                traced(true, input.to_string())
            }
            What::Answer(recorded) => {
                let replayed = player.answer.take();
                if replayed.as_ref() != Some(recorded) {
                    return diverged(recorded.clone(), replayed);
                }
                traced(false, format!("= {recorded}")).filter(|_| recorded != "accepted")
            }
            What::Sent(_) | What::Out(_) => {
                let replayed = player.next_action(*at);
                if !replayed.as_ref().is_some_and(|replayed| same(what, replayed)) {
                    return diverged(shown(what), replayed.as_ref().map(shown));
                }
                let text = shown(what);
                // The signal repeats the action `Connect`, so the trace omits it.
                traced(false, text).filter(|line| !line.text.starts_with("Connecting "))
            }
        })
    }
}

fn shown(what: &What) -> String {
    match what {
        What::Sent(frame) => format!("-> {frame}"),
        What::Out(text) | What::Answer(text) => text.clone(),
        What::In(input) => input.to_string(),
        What::Start(_) => "start".to_owned(),
    }
}

fn same(recorded: &What, replayed: &What) -> bool {
    match (recorded, replayed) {
        (What::Sent(recorded), What::Sent(replayed)) => recorded == replayed,
        (What::Out(recorded), What::Out(replayed)) => comparable(recorded) == comparable(replayed),
        _ => false,
    }
}

/// Strips the details of errors about redacted data. They differ in a replay, because a filler is invalid in
/// another way than the original payload or join parameters.
fn comparable(text: &str) -> &str {
    let ends = ["ProtocolError ", " (InvalidParams "]
        .iter()
        .filter_map(|cut| Some(text.find(cut)? + cut.len()));
    &text[..ends.min().unwrap_or(text.len())]
}

impl Joins {
    fn of(client: u64, lines: &[Numbered]) -> Self {
        let mut results: BTreeMap<String, VecDeque<_>> = BTreeMap::new();
        for Numbered { number, line, .. } in
            lines.iter().filter(|other| other.line.client == client)
        {
            if let What::Sent(frame) = &line.what {
                if let Some((topic, payload)) = frame.joined() {
                    results
                        .entry(topic.to_owned())
                        .or_default()
                        .push_back((*number, payload.payload()));
                }
            }
        }
        Self { line: 0, results }
    }

    /// Takes the result of the function for the join in the current line, if there is one.
    fn take(&mut self, topic: &str) -> Option<Payload> {
        let results = self.results.get_mut(topic)?;
        while results.front().is_some_and(|(line, _)| *line < self.line) {
            results.pop_front();
        }
        results.front().is_some_and(|(line, _)| *line == self.line).then_some(())?;
        results.pop_front().map(|(_, payload)| payload)
    }
}

impl Player {
    fn new(start: &Start, config: Config, at: Time, joins: Joins) -> Self {
        Self {
            socket: Socket::new(config, start.seed, at),
            payloads: start.payloads,
            joins,
            answer: None,
        }
    }

    fn next_action(&mut self, at: Time) -> Option<What> {
        let action = loop {
            match self.socket.poll_step(at)? {
                Step::Action(action) => break action,
                Step::Evaluate(ticket) => {
                    // If no join is recorded here, the function panicked, or its result could not be sent.
                    // Both end the channel in the same way.
                    let params = self.joins.take(&ticket.attempt().topic).ok_or(ParamsPanicked);
                    if let Supplied::Join(join) = self.socket.supply_join(at, &ticket, params) {
                        break join;
                    }
                }
            }
        };
        Some(socket::recorded(&action, &*self.socket.config().codec, self.payloads))
    }

    fn apply(&mut self, at: Time, record: &InputRecord) {
        self.answer = match record.input(&self.socket) {
            Ok(input) => socket::applied_text(&self.socket.apply(at, input)),
            Err(error) => Some(format!("refused: {error}")),
        };
    }
}
