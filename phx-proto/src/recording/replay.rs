//! Recordings, read and driven again.

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

/// The bytes that the lengths of a recording may claim in all, beside [`CLAIMS_PER_BYTE`]: a message
/// of the default [`Config::max_message_bytes`], received and answered.
const CLAIMS_MAX: u64 = 128 << 20;

/// The bytes that they may claim for each byte of the recording. A line of a frame has about a
/// hundred bytes, so these are frames of 100 KiB on average. A few kilobytes that claim a gigabyte
/// are refused before anything is allocated for them.
const CLAIMS_PER_BYTE: u64 = 1_024;

/// A recording that was read; see [the module](super).
#[derive(Clone, Debug)]
pub struct Recording {
    version: String,
    lines: Vec<Numbered>,
}

#[derive(Clone, Debug)]
struct Numbered {
    number: usize,
    line: Line,
    /// Of the start of a client.
    config: Option<Config>,
}

/// Why a text is no recording. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// There is nothing in it.
    #[error("line 1: it is empty")]
    Empty,
    /// It does not begin as a recording does.
    #[error("line 1: this is not how a recording begins")]
    NotARecording,
    /// It is of a format that this version does not know.
    #[error("line 1: it has format {found}, and this version reads format {FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
    /// A line cannot be understood: it was cut short, say.
    #[error("line {line}: {problem}")]
    Line {
        /// Which.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl RecordingError {
    /// The line that is at fault, from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        match self {
            Self::Empty | Self::NotARecording | Self::Format { .. } => 1,
            Self::Line { line, .. } => *line,
        }
    }
}

/// The replay did something else than what was recorded: this version differs from the one that
/// wrote the recording, or something decides that is not in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: the recording has `{recorded}`, the replay {}", self.replayed())]
#[non_exhaustive]
pub struct Divergence {
    /// The line of the recording, from 1.
    pub line: usize,
    /// What it says.
    pub recorded: String,
    /// What the replay did instead; none when it had nothing to do.
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
    /// When, on the clock of the client that was recorded.
    pub at: Time,
    /// Which client of the recorder, from 1.
    pub client: u64,
    /// Whether it is an input; else the client did it.
    pub is_input: bool,
    /// What.
    pub text: String,
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t={}ms client#{} {}", self.at.as_millis(), self.client, self.text)
    }
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    ///
    /// [`RecordingError`], with the line that is at fault.
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
        let claims_max = length.saturating_mul(CLAIMS_PER_BYTE).saturating_add(CLAIMS_MAX);
        let mut claims = 0_u64;
        let read = |(number, text): (usize, &str)| {
            let bad = |problem| RecordingError::Line { line: number, problem };
            let line: Line = serde_json::from_str(text).map_err(|error| bad(in_words(&error)))?;
            claims = claims.saturating_add(line.what.claims());
            if claims > claims_max {
                let problem = format!(
                    "the payloads up to here would have {claims} bytes, and a recording of this \
                     size has at most {claims_max}"
                );
                return Err(bad(problem));
            }
            let known = clients.contains(&line.client);
            let config = match &line.what {
                What::Start(_) if known => {
                    return Err(bad(format!("client {} starts a second time", line.client)));
                }
                What::Start(start) => {
                    clients.push(line.client);
                    Some(start.config.config().map_err(|error| bad(error.to_string()))?)
                }
                _ if !known => {
                    return Err(bad(format!("client {} has not started", line.client)));
                }
                _ => None,
            };
            Ok(Numbered { number, line, config })
        };
        let lines = lines.map(read).collect::<Result<_, _>>()?;
        Ok(Self { version, lines })
    }

    /// The version of phx-proto that wrote it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Drives sockets through it, line by line. The trace ends with the recording, or behind the
    /// first [`Divergence`].
    pub fn replay(&self) -> Replay<'_> {
        Replay { recording: self, next: 0, players: BTreeMap::new() }
    }
}

/// What a parser says, without the line, of which it sees one.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what}, at column {}", error.column())
}

/// The trace of a recording, from [`Recording::replay`].
#[derive(Debug)]
#[must_use = "nothing is driven unless the trace is read"]
pub struct Replay<'a> {
    recording: &'a Recording,
    next: usize,
    players: BTreeMap<u64, Player>,
}

/// One client that is driven again.
#[derive(Debug)]
struct Player {
    socket: Socket,
    payloads: bool,
    joins: Joins,
    answer: Option<String>,
}

/// What functions of join parameters made, by the line where the join was written.
#[derive(Debug, Default)]
struct Joins {
    line: usize,
    made: BTreeMap<String, VecDeque<(usize, Payload)>>,
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
            // One line, whatever topics and servers say.
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
        // Every client has started: that was checked when it was read.
        let Some(player) = self.players.get_mut(client) else { return Ok(None) };
        player.joins.line = *number;
        let diverged =
            |recorded: String, replayed| Err(Divergence { line: *number, recorded, replayed });
        Ok(match what {
            What::Start(_) => None,
            What::In(input) => {
                player.tell(*at, input);
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
                let replayed = player.act(*at);
                if !replayed.as_ref().is_some_and(|replayed| same(what, replayed)) {
                    return diverged(shown(what), replayed.as_ref().map(shown));
                }
                let text = shown(what);
                // Of two that say the same, one is enough.
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
        (What::Out(recorded), What::Out(replayed)) => gist(recorded) == gist(replayed),
        _ => false,
    }
}

/// Without the words of errors about what a recording does not have: a filler is wrong in another
/// place than what it stands for, and so are join parameters that could not be sent.
fn gist(text: &str) -> &str {
    let ends = ["ProtocolError ", " (InvalidParams "]
        .iter()
        .filter_map(|cut| Some(text.find(cut)? + cut.len()));
    &text[..ends.min().unwrap_or(text.len())]
}

impl Joins {
    fn of(client: u64, lines: &[Numbered]) -> Self {
        let mut made: BTreeMap<String, VecDeque<_>> = BTreeMap::new();
        for Numbered { number, line, .. } in
            lines.iter().filter(|other| other.line.client == client)
        {
            if let What::Sent(frame) = &line.what {
                if let Some((topic, payload)) = frame.joined() {
                    made.entry(topic.to_owned())
                        .or_default()
                        .push_back((*number, payload.payload()));
                }
            }
        }
        Self { line: 0, made }
    }

    /// What the function made for the join that is written in the present line, if one is.
    fn take(&mut self, topic: &str) -> Option<Payload> {
        let made = self.made.get_mut(topic)?;
        while made.front().is_some_and(|(line, _)| *line < self.line) {
            made.pop_front();
        }
        made.front().is_some_and(|(line, _)| *line == self.line).then_some(())?;
        made.pop_front().map(|(_, payload)| payload)
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

    fn act(&mut self, at: Time) -> Option<What> {
        let action = loop {
            match self.socket.poll_step(at)? {
                Step::Action(action) => break action,
                Step::Evaluate(ticket) => {
                    // A function that made nothing that could be written panicked, for all that one
                    // can tell.
                    let made = self.joins.take(&ticket.attempt().topic).ok_or(ParamsPanicked);
                    if let Supplied::Join(join) = self.socket.supply_join(at, &ticket, made) {
                        break join;
                    }
                }
            }
        };
        Some(socket::recorded(&action, &*self.socket.config().codec, self.payloads))
    }

    fn tell(&mut self, at: Time, record: &InputRecord) {
        self.answer = match record.input(&self.socket) {
            Ok(input) => socket::applied_in_words(&self.socket.apply(at, input)),
            Err(error) => Some(format!("refused: {error}")),
        };
    }
}
