//! Reading and replaying recordings.

use core::fmt;
use std::collections::BTreeMap;

use super::input::InputRecord;
use super::line::{FORMAT, Header, Line, Start, What};
use super::socket;
use crate::config::Config;
use crate::config::join_params::ParamsPanicked;
use crate::event::applied::Supplied;
use crate::socket::{Socket, Step};
use crate::time::Time;

/// The maximum number of filler bytes that a replay may allocate for any recording. It is enough for a
/// message of the default [`Config::max_message_bytes`] and its reply.
const FILLER_MAX: u64 = 128 << 20;

/// The number of filler bytes by which each byte of a recording raises that maximum. The line of a frame has
/// about a hundred bytes, so this allows frames of 100 KiB on average. A recording of a few kilobytes that
/// needs a gigabyte is refused before anything is allocated.
const FILLER_PER_BYTE: u64 = 1_024;

/// A parsed recording; see [the module](super). [`LineReplay`] replays one without keeping it in memory.
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
    /// A replay creates fillers for redacted payloads. Together they may have at most 128 MiB, and 1 KiB for
    /// each byte of the text. [`LineReplay`] counts only those that the clients hold at one time.
    ///
    /// # Errors
    ///
    /// [`RecordingError`] with the number of the invalid line.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let mut reader = Reader { length: length(text), ..Reader::default() };
        let mut lines = Vec::new();
        for line in text.lines() {
            lines.extend(reader.line(line)?);
        }
        let version = reader.version.ok_or(RecordingError::Empty)?;
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
        Replay { recording: self, next: 0, players: Players::default() }
    }
}

/// Replays a recording line by line while it is read. It keeps the state of the recorded clients and no line,
/// so a recording of any length can be replayed, unless the clients hold too many redacted payloads at one
/// time.
///
/// ```
/// use phx_proto::recording::{LineReplay, ReplayError};
///
/// /// Prints the trace of a recording.
/// fn print<'a>(lines: impl Iterator<Item = &'a str>) -> Result<(), ReplayError> {
///     let mut replay = LineReplay::new();
///     for line in lines {
///         if let Some(line) = replay.next_line(line)? {
///             println!("{line}");
///         }
///     }
///     Ok(())
/// }
/// # assert!(print("hello".lines()).is_err());
/// ```
#[derive(Debug, Default)]
pub struct LineReplay {
    reader: Reader,
    players: Players,
}

/// Why a line of a recording could not be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The line is invalid.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The replay differs from the line.
    #[error(transparent)]
    Diverged(#[from] Divergence),
}

impl LineReplay {
    /// A replay before the first line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The version of phx-proto that wrote the recording; `None` before the first line.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.reader.version.as_deref()
    }

    /// Replays the next line, which has no line break at its end, and returns its line of the trace, if it has
    /// one. The redacted payloads that the clients hold at one time may need as much memory as
    /// [`Recording::parse`] allows for a recording that ends here. Join parameters count for the whole replay.
    ///
    /// # Errors
    ///
    /// [`ReplayError`], which ends the replay: later lines have no meaning.
    pub fn next_line(&mut self, line: &str) -> Result<Option<TraceLine>, ReplayError> {
        self.reader.length = self.reader.length.saturating_add(length(line)).saturating_add(1);
        let Some(numbered) = self.reader.line(line)? else { return Ok(None) };
        let traced = self.players.step(&numbered)?;
        if let Some(player) = self.players.0.get(&numbered.line.client) {
            self.reader.release(&numbered.line, &player.socket);
        }
        Ok(traced)
    }
}

/// Reads the lines of a recording one after another.
#[derive(Debug, Default)]
struct Reader {
    /// The number of lines that were read.
    number: usize,
    /// The version in the header; `None` before the first line.
    version: Option<String>,
    /// The length of the recording in bytes, as far as it is known.
    length: u64,
    /// The clients, by their numbers, and the filler bytes of each that [`release`](Self::release) may
    /// subtract.
    clients: BTreeMap<u64, Held>,
    /// The number of filler bytes up to this line, without those that were released.
    filler: u64,
}

/// The filler bytes that a client may hold, without those of join parameters.
#[derive(Debug, Default)]
struct Held {
    /// Those of frames, which queued actions may contain.
    frames: u64,
    /// Those of pushes, which may be queued.
    pushes: u64,
    /// The lengths of the join responses, by topic. A channel that ended without a frame of its topic is
    /// still counted.
    responses: BTreeMap<String, u64>,
}

impl Reader {
    /// Reads the next line; `None` for the header.
    fn line(&mut self, text: &str) -> Result<Option<Numbered>, RecordingError> {
        self.number += 1;
        let number = self.number;
        if self.version.is_none() {
            let Header { phx_recording, version } =
                serde_json::from_str(text).map_err(|_| RecordingError::NotARecording)?;
            if phx_recording != FORMAT {
                return Err(RecordingError::Format { found: phx_recording });
            }
            self.version = Some(version);
            return Ok(None);
        }
        let invalid = |problem| RecordingError::Line { line: number, problem };
        let line: Line =
            serde_json::from_str(text).map_err(|error| invalid(parse_problem(&error)))?;
        let added = line.what.filler_len();
        self.filler = self.filler.saturating_add(added);
        let (filler, max) = (self.filler, self.filler_max());
        if filler > max {
            return Err(invalid(format!(
                "the redacted payloads up to this line have {filler} bytes, more than the {max} that are \
                 allowed for a recording of this size"
            )));
        }
        let config = match &line.what {
            What::Start(_) if self.clients.insert(line.client, Held::default()).is_some() => {
                return Err(invalid(format!("client {} starts a second time", line.client)));
            }
            What::Start(start) => {
                Some(start.config.config().map_err(|error| invalid(error.to_string()))?)
            }
            what => {
                let Some(held) = self.clients.get_mut(&line.client) else {
                    return Err(invalid(format!("client {} has not started", line.client)));
                };
                match what {
                    What::In(InputRecord::Push { .. }) => {
                        held.pushes = held.pushes.saturating_add(added);
                    }
                    What::In(InputRecord::Frame { .. }) | What::Sent(_) => {
                        held.frames = held.frames.saturating_add(added);
                    }
                    // The fillers of the others are join parameters, which the socket keeps.
                    _ => {}
                }
                None
            }
        };
        Ok(Some(Numbered { number, line, config }))
    }

    /// Stops counting the fillers that the client of this line, which was replayed on its socket, no longer
    /// holds.
    fn release(&mut self, line: &Line, socket: &Socket) {
        let Some(held) = self.clients.get_mut(&line.client) else { return };
        let topic = match &line.what {
            What::In(InputRecord::Frame { frame, .. }) => frame.topic(),
            _ => None,
        };
        if let Some(topic) = topic {
            let response = socket.join_response(topic).map_or(0, |response| response.len() as u64);
            let before = match response {
                0 => held.responses.remove(topic),
                length => held.responses.insert(topic.to_owned(), length),
            };
            let before = before.unwrap_or_default();
            // A longer response came in this frame, whose fillers are not counted twice.
            let moved = response.saturating_sub(before).min(held.frames);
            held.frames -= moved;
            self.filler = self.filler.saturating_add(response).saturating_sub(before + moved);
        }
        if socket.has_actions() {
            return;
        }
        let mut released = core::mem::take(&mut held.frames);
        if socket.stats().queued_pushes == 0 {
            released = released.saturating_add(core::mem::take(&mut held.pushes));
        }
        self.filler = self.filler.saturating_sub(released);
    }

    const fn filler_max(&self) -> u64 {
        self.length.saturating_mul(FILLER_PER_BYTE).saturating_add(FILLER_MAX)
    }
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
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
    players: Players,
}

/// The replays of the clients, by their numbers.
#[derive(Debug, Default)]
struct Players(BTreeMap<u64, Player>);

/// The replay of one client.
#[derive(Debug)]
struct Player {
    socket: Socket,
    payloads: bool,
    answer: Option<String>,
}

impl Iterator for Replay<'_> {
    type Item = Result<TraceLine, Divergence>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let numbered = self.recording.lines.get(self.next)?;
            self.next += 1;
            match self.players.step(numbered) {
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

impl Players {
    fn step(&mut self, numbered: &Numbered) -> Result<Option<TraceLine>, Divergence> {
        let Numbered { number, line: Line { client, at, what }, config } = numbered;
        let traced = |is_input, text: String| {
            // Replaces line breaks, which topics and messages of the server may contain.
            let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Some(TraceLine { at: *at, client: *client, is_input, text })
        };
        if let (What::Start(start), Some(config)) = (what, config) {
            self.0.insert(*client, Player::new(start, config.clone(), *at));
            let (uri, vsn) = (config.uri(), config.codec.vsn());
            return Ok(traced(true, format!("start {uri}, vsn {vsn}, seed {}", start.seed)));
        }
        // The reader has checked that every client has started.
        let Some(player) = self.0.get_mut(client) else { return Ok(None) };
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
                let replayed = player.next_action(*at, what);
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

impl Player {
    fn new(start: &Start, config: Config, at: Time) -> Self {
        let socket = Socket::new(config, start.seed, at);
        Self { socket, payloads: start.payloads, answer: None }
    }

    /// The next action. `recorded` is the recorded one: if it is the frame of a join, it contains the result of
    /// the function of join parameters.
    fn next_action(&mut self, at: Time, recorded: &What) -> Option<What> {
        let mut joined = match recorded {
            What::Sent(frame) => frame.joined(),
            _ => None,
        };
        let action = loop {
            match self.socket.poll_step(at)? {
                Step::Action(action) => break action,
                Step::Evaluate(ticket) => {
                    // If no join is recorded here, the function panicked, or its result could not be sent.
                    // Both end the channel in the same way.
                    let topic = &*ticket.attempt().topic;
                    let params = joined.take_if(|(joined, _)| *joined == topic);
                    let params = params.map(|(_, record)| record.payload()).ok_or(ParamsPanicked);
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
