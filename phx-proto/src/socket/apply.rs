//! Dispatch of commands and inputs as data, each an [`Input`], to their methods.

use crate::event::applied::Applied;
use crate::event::input::Input;
use crate::socket::Socket;
use crate::time::Time;

/// # Inputs as data
impl Socket {
    /// Applies an [`Input`]. The effect is the same as that of calling the input's method.
    ///
    /// ```
    /// use phx_proto::{Applied, Config, Input, JoinParams, Socket, Time};
    ///
    /// let config = Config::new("ws://localhost:4000/socket/websocket")?;
    /// let mut socket = Socket::new(config, 1, Time::ZERO);
    /// let inputs = [
    ///     Input::Join { topic: "room:lobby".into(), params: JoinParams::none() },
    ///     Input::Connect,
    ///     Input::Probe,
    /// ];
    /// let applied = inputs.map(|input| socket.apply(Time::ZERO, input));
    /// assert!(matches!(applied, [Applied::Join(Ok(_)), Applied::Done, Applied::Probe(Err(_))]));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    pub fn apply(&mut self, now: Time, input: Input) -> Applied {
        match input {
            Input::Connect => self.connect(now),
            Input::Disconnect => self.disconnect(now),
            Input::ConnectNow => return Applied::ConnectNow(self.connect_now(now)),
            Input::Probe => return Applied::Probe(self.probe(now)),
            Input::Join { topic, params } => {
                return Applied::Join(self.join(now, topic, params));
            }
            Input::Attach { topic } => return Applied::Attach(self.attach(now, &topic)),
            Input::Release { interest } => return Applied::Release(self.release(now, interest)),
            Input::Leave { topic } => return Applied::Leave(self.leave(now, &topic)),
            Input::Rejoin { topic } => return Applied::Rejoin(self.rejoin(now, &topic)),
            Input::SetJoinParams { topic, params } => {
                return Applied::SetJoinParams(self.set_join_params(now, &topic, params));
            }
            Input::SupplyJoin { ticket, params } => {
                return Applied::SupplyJoin(self.supply_join(now, &ticket, params));
            }
            Input::Push { topic, event, payload, options } => {
                return Applied::Push(self.push(now, &topic, &event, payload, options));
            }
            Input::CancelPush { id } => return Applied::CancelPush(self.cancel_push(now, id)),
            Input::ReportUnrouted { on } => self.report_unrouted(now, on),
            Input::Reseed { seed } => self.reseed(now, seed),
            Input::SetCredentials(credentials) => {
                return Applied::SetCredentials(self.set_credentials(now, credentials));
            }
            Input::CredentialsUnchanged { id } => self.credentials_unchanged(now, id),
            Input::Dialled { id } => self.handle_dialled(now, id),
            Input::Opened { id, opened } => self.handle_opened(now, id, opened),
            Input::Failed { id, cause } => self.handle_failed(now, id, cause),
            Input::Closed { id, ended } => self.handle_closed(now, id, ended),
            Input::Frame { id, frame } => self.handle_frame(now, id, frame),
            Input::Writable { id, writable } => self.handle_writable(now, id, writable),
            Input::Progress { id, progress } => self.handle_progress(now, id, progress),
            Input::Timeout => self.handle_timeout(now),
            Input::Wake => self.handle_wake(now),
            Input::Panicked => self.handle_panicked(now),
        }
        Applied::Done
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::join_params::{JoinParams, ParamsPanicked};
    use crate::config::{Config, Credentials};
    use crate::event::action::Action;
    use crate::event::cause::{Cause, DialKind};
    use crate::event::input::{Ended, Opened, Progress, PushOptions};
    use crate::event::ticket::JoinTicket;
    use crate::id::{ConnectionId, InterestId, PushId};
    use crate::socket::Step;
    use crate::wire::Frame;
    use crate::wire::payload::Payload;

    const NOW: Time = Time::from_millis(1_000);
    const LATER: Time = Time::from_millis(31_500);

    /// Polls all steps; stops at a ticket.
    fn drain(socket: &mut Socket, now: Time) -> (Vec<Action>, Option<JoinTicket>) {
        let mut actions = Vec::new();
        loop {
            match socket.poll_step(now) {
                Some(Step::Action(action)) => actions.push(action),
                Some(Step::Evaluate(ticket)) => return (actions, Some(ticket)),
                None => return (actions, None),
            }
        }
    }

    /// Three sockets: an idle one, a connecting one, and one with a joined topic, a push, and a
    /// join whose parameters are made by a function. Also returns the ids and the ticket of the
    /// third.
    fn sockets() -> ([Socket; 3], ConnectionId, InterestId, PushId, JoinTicket) {
        let config = Config::new("ws://localhost:4000/socket/websocket").expect("a good URI");
        let idle = Socket::new(config, 7, NOW);
        let mut connecting = idle.clone();
        connecting.connect(NOW);
        drain(&mut connecting, NOW);
        let id = connecting.connection_id().expect("an attempt");
        let mut open = connecting.clone();
        open.handle_opened(NOW, id, Opened::default());
        let interest = open.join(NOW, "room:a", json!({})).expect("accepted");
        drain(&mut open, NOW);
        let ok = r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#;
        open.handle_frame(NOW, id, Frame::from(ok));
        let push = open.push(NOW, "room:a", "ask", json!({}), PushOptions::call());
        let made = JoinParams::from_fn(|_| Payload::empty());
        open.join(NOW, "room:made", made).expect("accepted");
        let (_, ticket) = drain(&mut open, NOW);
        let ticket = ticket.expect("a function to call");
        ([idle, connecting, open], id, interest, push.expect("accepted"), ticket)
    }

    /// From each of three states, every input gives the same result, socket and actions as its
    /// method. In at least one of the states it has an effect and advances the time.
    #[test]
    fn apply_equals_the_method() {
        let (sockets, id, interest, push, ticket) = sockets();
        type Method = Box<dyn Fn(&mut Socket) -> Applied>;
        let unit = |method: fn(&mut Socket, ConnectionId)| -> Method {
            Box::new(move |socket| {
                method(socket, id);
                Applied::Done
            })
        };
        let topic = || "room:a".into();
        let params = || JoinParams::from(json!({"n": 1}));
        let supplied = || Ok::<_, ParamsPanicked>(Payload::empty());
        let credentials = || Credentials::new().param("token", "new");
        let options = PushOptions::cast();
        let cause = || Cause::Dial { kind: DialKind::Refused, message: "no".into() };
        let ended = || Ended::Lost { message: "reset".into() };
        let frame = || Frame::from(r#"[null,null,"room:a","news",{}]"#);
        let progress = Progress {
            read: 10,
            written: 20,
            flushed: true,
            acknowledged: 5,
            acknowledged_next: 15,
        };
        let cases: Vec<(Input, Method)> = vec![
            (Input::Connect, unit(|socket, _| socket.connect(LATER))),
            (Input::Disconnect, unit(|socket, _| socket.disconnect(LATER))),
            (Input::ConnectNow, Box::new(|it| Applied::ConnectNow(it.connect_now(LATER)))),
            (Input::Probe, Box::new(|it| Applied::Probe(it.probe(LATER)))),
            (
                Input::Join { topic: "room:b".into(), params: params() },
                Box::new(move |it| Applied::Join(it.join(LATER, "room:b", params()))),
            ),
            (
                Input::Attach { topic: topic() },
                Box::new(|it| Applied::Attach(it.attach(LATER, "room:a"))),
            ),
            (
                Input::Release { interest },
                Box::new(move |it| Applied::Release(it.release(LATER, interest))),
            ),
            (
                Input::Leave { topic: topic() },
                Box::new(|it| Applied::Leave(it.leave(LATER, "room:a"))),
            ),
            (
                Input::Rejoin { topic: topic() },
                Box::new(|it| Applied::Rejoin(it.rejoin(LATER, "room:a"))),
            ),
            (
                Input::SetJoinParams { topic: topic(), params: params() },
                Box::new(move |it| {
                    Applied::SetJoinParams(it.set_join_params(LATER, "room:a", params()))
                }),
            ),
            (
                Input::SupplyJoin { ticket: ticket.clone(), params: supplied() },
                Box::new(move |it| Applied::SupplyJoin(it.supply_join(LATER, &ticket, supplied()))),
            ),
            (
                Input::Push {
                    topic: topic(),
                    event: "say".into(),
                    payload: Payload::binary("x"),
                    options,
                },
                Box::new(move |it| {
                    let payload = Payload::binary("x");
                    Applied::Push(it.push(LATER, "room:a", "say", payload, options))
                }),
            ),
            (
                Input::CancelPush { id: push },
                Box::new(move |it| Applied::CancelPush(it.cancel_push(LATER, push))),
            ),
            (
                Input::ReportUnrouted { on: true },
                unit(|socket, _| socket.report_unrouted(LATER, true)),
            ),
            (Input::Reseed { seed: 8 }, unit(|socket, _| socket.reseed(LATER, 8))),
            (
                Input::SetCredentials(credentials()),
                Box::new(move |it| {
                    Applied::SetCredentials(it.set_credentials(LATER, credentials()))
                }),
            ),
            (
                Input::CredentialsUnchanged { id },
                unit(|socket, id| socket.credentials_unchanged(LATER, id)),
            ),
            (Input::Dialled { id }, unit(|socket, id| socket.handle_dialled(LATER, id))),
            (
                Input::Opened { id, opened: Opened::default() },
                unit(|socket, id| socket.handle_opened(LATER, id, Opened::default())),
            ),
            (
                Input::Failed { id, cause: cause() },
                Box::new(move |it| {
                    it.handle_failed(LATER, id, cause());
                    Applied::Done
                }),
            ),
            (
                Input::Closed { id, ended: ended() },
                Box::new(move |it| {
                    it.handle_closed(LATER, id, ended());
                    Applied::Done
                }),
            ),
            (
                Input::Frame { id, frame: frame() },
                Box::new(move |it| {
                    it.handle_frame(LATER, id, frame());
                    Applied::Done
                }),
            ),
            (
                Input::Writable { id, writable: false },
                unit(|socket, id| socket.handle_writable(LATER, id, false)),
            ),
            (
                Input::Progress { id, progress },
                Box::new(move |it| {
                    it.handle_progress(LATER, id, progress);
                    Applied::Done
                }),
            ),
            (Input::Timeout, unit(|socket, _| socket.handle_timeout(LATER))),
            (Input::Wake, unit(|socket, _| socket.handle_wake(LATER))),
            (Input::Panicked, unit(|socket, _| socket.handle_panicked(LATER))),
        ];
        for (input, method) in cases {
            let (mut effects, mut timed) = (0, false);
            for before in &sockets {
                let (mut one, mut other) = (before.clone(), before.clone());
                let applied = one.apply(LATER, input.clone());
                let returned = method(&mut other);
                timed |= one.now == LATER;
                assert_eq!(applied, returned, "{input:?}");
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "{input:?}");
                let did = drain(&mut one, LATER).0;
                assert_eq!(did, drain(&mut other, LATER).0, "{input:?}");
                let mut without = before.clone();
                without.cancel_push(LATER, PushId::from_u64(u64::MAX));
                let same = drain(&mut without, LATER).0 == did
                    && format!("{without:?}") == format!("{one:?}");
                effects += usize::from(!same);
            }
            assert!(effects > 0 && timed, "{input:?} has no effect, or takes no time");
        }
    }
}
