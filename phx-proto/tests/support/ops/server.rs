//! The server of a [`World`]. It answers any frame, with or against the rules of the protocol.

use phx_proto::{Applied, ConnectionId, Frame, Input, Status};
use serde_json::{Value, json};

use super::peer::{Sent, binary, message};
use super::world::{Called, World, assert_same, name, pick};
use super::{Answer, Named, ServerMessage};

impl World {
    /// Receives a frame. A stale frame, which concerns only what has ended, may change only counters
    /// and the ledger of the bytes that the server has received.
    fn receive(&mut self, id: ConnectionId, frame: Frame, stale: bool) {
        self.pass_time();
        let before = stale.then(|| self.shown_without_counters());
        assert_eq!(self.socket.apply(self.now, Input::Frame { id, frame }), Applied::Done);
        if let Some(before) = before {
            assert_same(&self.shown_without_counters(), &before, "a stale frame changes nothing");
        }
    }

    fn shown_without_counters(&self) -> String {
        let mut shown = format!("{:?}", self.socket);
        for counters in ["stats: Stats {", "ledger: Ledger {"] {
            let Some(start) = shown.find(counters) else { continue };
            let mut depth = 0;
            let ends = |(_, letter): &(usize, char)| {
                depth += i32::from(*letter == '{') - i32::from(*letter == '}');
                *letter == '}' && depth == 0
            };
            let (length, _) = shown[start..].char_indices().find(ends).expect("their end");
            shown.replace_range(start..start + length, "");
        }
        shown
    }

    /// The frames of this connection that the server has not answered, oldest first.
    pub fn unanswered(&self) -> Vec<usize> {
        let Some(id) = self.socket.connection_id() else { return Vec::new() };
        let open = |sent: &Sent| sent.conn == id && !sent.answered;
        (0..self.sent.len()).filter(|index| open(&self.sent[*index])).collect()
    }

    pub fn answer(&mut self, nth: u8, how: Answer) -> Called {
        match pick(&self.unanswered(), nth) {
            Some(index) => self.reply(*index, how),
            None => Called::Other,
        }
    }

    /// Replies, on the current connection, to the frame with this index among all frames.
    pub fn reply(&mut self, index: usize, how: Answer) -> Called {
        const REASONS: [&str; 4] =
            ["no", "join crashed", "unmatched topic", "too many channels joined"];
        if self.socket.status() != Status::Open {
            return Called::Other;
        }
        let id = self.socket.connection_id().expect("an open connection");
        let sent = &mut self.sent[index];
        // Any "unmatched topic" reply without a join_ref may mean that the server has lost a channel.
        let unmatched = matches!(how, Answer::Unmatched | Answer::Error(_));
        let astray = how == Answer::Astray;
        let stale = astray || ((sent.answered || sent.conn != id) && !unmatched);
        sent.answered |= sent.conn == id && !astray;
        let mut sent = sent.clone();
        if astray {
            sent.topic = name(u8::from(sent.topic == name(0)));
        }
        let join_ref = match how {
            Answer::Unmatched | Answer::Astray => Value::Null,
            _ => json!(sent.join_ref.map(|join_ref| join_ref.to_string())),
        };
        let msg_ref = sent.msg_ref.to_string();
        let (status, response) = match how {
            Answer::Ok | Answer::OkBinary => ("ok", json!({"to": sent.event})),
            Answer::Error(reason) => ("error", json!({"reason": REASONS[usize::from(reason) % 4]})),
            Answer::Unmatched | Answer::Astray => ("error", json!({"reason": "unmatched topic"})),
            Answer::OtherStatus => ("maybe", json!([])),
        };
        let frame = if how == Answer::OkBinary && !self.setup.vsn_1 {
            let join_ref = join_ref.as_str().unwrap_or_default();
            binary(1, &[join_ref, &msg_ref, &sent.topic, status])
        } else {
            let payload = json!({"status": status, "response": response});
            message(
                self.setup.vsn_1,
                &join_ref,
                &json!(msg_ref),
                &sent.topic,
                "phx_reply",
                &payload,
            )
        };
        self.receive(id, frame, stale);
        if astray {
            return Called::Frame;
        }
        Called::Reply { topic: sent.topic, msg_ref: sent.msg_ref, ok: status == "ok" }
    }

    pub fn send_message(&mut self, topic: u8, what: ServerMessage, named: Named) -> Called {
        if self.socket.status() != Status::Open {
            return Called::Other;
        }
        let id = self.socket.connection_id().expect("an open connection");
        let topic = name(topic);
        let joins: Vec<&Sent> =
            self.sent.iter().filter(|sent| sent.is_join() && sent.topic == topic).collect();
        let join = match named {
            Named::Current => joins.last().copied(),
            Named::Earlier(nth) => pick(&joins, nth).copied(),
            Named::Null | Named::Foreign => None,
        };
        let join_ref = match named {
            Named::Foreign => json!("x1"),
            _ => json!(join.map(|join| join.msg_ref.to_string())),
        };
        let newest = joins.last().filter(|newest| newest.conn == id);
        let stale = match named {
            Named::Null => false,
            Named::Foreign => true,
            _ => join.is_some_and(|join| newest.is_none_or(|it| it.msg_ref != join.msg_ref)),
        };
        let event = match what {
            ServerMessage::Error => "phx_error",
            ServerMessage::Close => "phx_close",
            ServerMessage::Message | ServerMessage::BinaryMessage => "news",
        };
        let frame = if what == ServerMessage::BinaryMessage && !self.setup.vsn_1 {
            match join_ref.as_str() {
                Some(join_ref) => binary(0, &[join_ref, &topic, event]),
                None => binary(2, &[&topic, event]),
            }
        } else {
            let ends = matches!(what, ServerMessage::Error | ServerMessage::Close);
            let msg_ref = if ends { join_ref.clone() } else { Value::Null };
            message(self.setup.vsn_1, &join_ref, &msg_ref, &topic, event, &json!({"k": 1}))
        };
        // In vsn 1 only, messages do not show which instance they belong to.
        let ends = matches!(what, ServerMessage::Error | ServerMessage::Close);
        self.receive(id, frame, stale && (ends || !self.setup.vsn_1));
        Called::Frame
    }
}
