//! Prints a path as a trace, and as a unit test to paste.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::config::Options;
use crate::socket::fixpoint::world::{Op, Settings, World};

/// Prints the path to a state: each operation with its time, the actions that it caused and the
/// state after it, and then the same path as a test.
pub(crate) fn path(settings: &'static Settings, path: &[Op]) -> String {
    let (trace, script) = run(settings, path);
    format!("{trace}\n{script}")
}

fn run(settings: &'static Settings, path: &[Op]) -> (String, String) {
    let mut world = World::new(settings);
    world.script = Some(Vec::new());
    let mut trace = format!("a path in the world `{}`:\n", settings.name);
    for op in path {
        world.seen = Some(Vec::new());
        let broken = catch_unwind(AssertUnwindSafe(|| world.step(*op))).err();
        trace += &format!("{:>6}  {op:?}\n", world.now.to_string());
        for action in world.seen.iter().flatten() {
            trace += &format!("            {action:?}\n");
        }
        let state = match broken {
            None => world.show(),
            Some(panic) => {
                let message = panic.downcast_ref::<String>().map(String::as_str);
                let message = message.or(panic.downcast_ref::<&str>().copied());
                format!("BROKEN: {}", message.unwrap_or_default())
            }
        };
        trace += &format!("          = {state}\n");
    }
    (trace, test(settings, &world.script.unwrap_or_default()))
}

/// Prints the calls of a path as a test outside the crate. The last call is the one after which a
/// check failed.
fn test(settings: &Settings, calls: &[String]) -> String {
    let all = |options: &Options| serde_json::to_value(options).expect("options");
    let (mut options, default) = (all(&settings.config()), all(&Options::default()));
    let options = options.as_object_mut().expect("an object");
    options.retain(|name, value| default[name.as_str()] != *value);
    let options = serde_json::to_string(options).expect("options");
    let vsn = if settings.vsn_1 { "?vsn=1.0.0" } else { "" };
    let params = if settings.function {
        "JoinParams::from_fn(|_| Payload::empty())"
    } else {
        "JoinParams::none()"
    };
    let calls: String = calls.iter().map(|call| format!("    {call}\n")).collect();
    format!(
        r##"#[test]
fn name_what_is_wrong() {{
    let options: Options = serde_json::from_str(r#"{options}"#).unwrap();
    let config = Config::new("ws://localhost/{vsn}").unwrap().options(options);
    let (at, id, params) = (Time::from_nanos, ConnectionId::from_u64, {params});
    let next = |socket: &mut Socket, now| println!("{{:?}}", socket.poll_step(now));
    let mut now = at(0);
    let mut socket = Socket::new(config, 0, now);
{calls}}}
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::join_params::JoinParams;
    use crate::event::input::Opened;
    use crate::id::ConnectionId;
    use crate::socket::Socket;
    use crate::socket::fixpoint::TWO_INTERESTS;
    use crate::socket::fixpoint::world::{Draw, Verdict};
    use crate::time::Time;
    use crate::wire::Frame;

    const PATH: [Op; 7] = [
        Op::Join(0),
        Op::Connect,
        Op::Tick,
        Op::Tick,
        Op::Opened(Draw::Lowest),
        Op::Serve(Verdict::Ok),
        Op::Deliver,
    ];

    #[rustfmt::skip]
    #[test]
    fn name_what_is_wrong() {
        let options: Options = serde_json::from_str(r#"{"close_rules":{"1000":{"retry_within_msec":[10,2000]},"1001":{"retry_within_msec":[10,2000]},"1008":"stop","1012":{"retry_within_msec":[2000,2000]},"1013":{"retry_within_msec":[10,2000]}},"close_timeout_msec":1000,"connect_timeout_msec":2000,"first_retry_spread_msec":[1000,1000],"heartbeat_interval_msec":0,"heartbeat_timeout_msec":1000,"join_block_max_msec":2000,"join_concurrency":1,"join_rejections_max":1,"join_timeout_msec":1000,"leave_timeout_msec":2000,"max_message_bytes":300,"max_push_bytes":300,"progress_max_msec":0,"push_timeout_msec":1000,"pushes_in_flight_max":16,"queued_pushes_max":4,"receive_rate_min":1,"reconnect_after_msec":{"floor":10,"jitter":0.0,"schedule":{"steps":[1000]}},"refused_after_msec":{"floor":10,"jitter":0.0,"schedule":{"steps":[3000,4000]}},"rejected_after_msec":{"floor":10,"jitter":0.0,"schedule":{"steps":[1000,2000]}},"rejoin_after_msec":{"floor":10,"jitter":0.0,"schedule":{"steps":[1000]}},"send_rate_min":1,"stable_after_msec":1000,"write_stall_timeout_msec":3000}"#).unwrap();
        let config = Config::new("ws://localhost/").unwrap().options(options);
        let (at, id, params) = (Time::from_nanos, ConnectionId::from_u64, JoinParams::none());
        let next = |socket: &mut Socket, now| println!("{:?}", socket.poll_step(now));
        let mut now = at(0);
        let mut socket = Socket::new(config, 0, now);
        socket.join(now, "a", params.clone()).unwrap();
        socket.connect(now);
        next(&mut socket, now); // Signal(Connecting { id: conn#1, attempt: 0 })
        next(&mut socket, now); // Connect { id: conn#1, attempt: 0 }
        now = at(2000000000); // Connect
        socket.handle_timeout(now);
        next(&mut socket, now); // Abort { id: conn#1 }
        next(&mut socket, now); // Signal(ConnectFailed { id: conn#1, cause: ConnectTimeout, next: Retry { delay: 1s, attempt: 1 } })
        next(&mut socket, now); // ReconnectAfter { delay: 1s, attempt: 1, cause: ConnectTimeout }
        now = at(3000000000); // Reconnect
        socket.handle_timeout(now);
        next(&mut socket, now); // Signal(Connecting { id: conn#2, attempt: 1 })
        next(&mut socket, now); // Connect { id: conn#2, attempt: 1 }
        socket.reseed(now, 7046029254386353131);
        socket.handle_opened(now, id(2), Opened::default());
        next(&mut socket, now); // Signal(Connected { id: conn#2 })
        next(&mut socket, now); // Join { id: conn#2, topic: "a", frame: Text(27 bytes) }
        socket.handle_frame(now, id(2), Frame::from(r#"["1","1","a","phx_reply",{"status":"ok","response":{}}]"#));
        next(&mut socket, now); // Signal(Joined { topic: "a", response: Payload(json, 2 bytes) })
    }

    /// The test above equals the printed test of the path.
    #[test]
    fn fixpoint_path_prints_as_a_test() {
        let text = path(&TWO_INTERESTS, &PATH);
        assert!(text.contains("   0ms  Connect\n            Signal(Connecting"), "{text}");
        let test = &text[text.find("#[test]").expect("a test")..];
        let here: Vec<&str> = include_str!("print.rs").lines().map(str::trim).collect();
        let expected: Vec<&str> = test.lines().map(str::trim).collect();
        let found = here.windows(expected.len()).any(|lines| lines == expected);
        assert!(found, "paste this:\n{test}");
    }
}
