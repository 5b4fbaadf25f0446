//! Parses a document of connections with an environment.

use phx_proto::service::{Connections, ProblemKind};
use phx_proto::{Action, ConfigError, Socket, Time};

const SECRET: &str = "s3cr3t-0f-the-env";

fn environment(name: &str) -> Option<String> {
    match name {
        "URI" => Some("ws://localhost:4000/socket/websocket".into()),
        "HOST" => Some("localhost".into()),
        "SECRET" => Some(SECRET.into()),
        "EMPTY" => Some(String::new()),
        "ODD" => Some("a\r\nb: c ${HOST} \" \0 é".into()),
        _ => None,
    }
}

/// Parsing does not panic. The text of an error does not contain the secret of the environment. An
/// accepted configuration can be dialled with a valid request.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Connections::from_json(text, environment) {
        Ok(connections) => {
            let again = Connections::from_json(text, environment).expect("as before");
            assert_eq!(format!("{connections:?}"), format!("{again:?}"));
            for (_, spec) in connections.iter() {
                dial(Socket::new(spec.config().clone(), 7, Time::from_nanos(0)));
            }
        }
        Err(error) => {
            assert!(!error.problems().is_empty() && !error.to_string().is_empty());
            for problem in error.problems() {
                // Hosts, topics and header names are no secrets, so they are printed.
                let named = match &problem.kind {
                    ProblemKind::Config(ConfigError::Header { name, .. }) => name.contains(SECRET),
                    ProblemKind::Invalid { message } => {
                        message.starts_with("ws:// to ") || message.starts_with("the channel ")
                    }
                    _ => false,
                };
                let named = named || text.contains(SECRET);
                assert!(named || !format!("{problem} {problem:?}").contains(SECRET), "{problem}");
            }
        }
    }
}

fn dial(mut socket: Socket) {
    let now = Time::from_nanos(0);
    socket.connect(now);
    let mut dialled = false;
    while let Some(action) = socket.poll_action(now) {
        dialled |= matches!(action, Action::Connect { .. });
    }
    assert!(dialled);
    let request = socket.connect_request().expect("an address that may be dialled");
    let uri = &request.uri;
    let target = uri.target();
    assert!(target.starts_with('/') && target.contains("vsn="), "{target}");
    assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{target}");
    assert!(
        !uri.host().is_empty() && uri.host_header().bytes().all(|byte| byte.is_ascii_graphic())
    );
    let clean = |value: &str| !value.contains(['\r', '\n', '\0']);
    for (name, value) in &request.headers {
        assert!(!name.is_empty() && !name.contains([':', ' ']) && clean(name), "{name:?}");
        assert!(clean(value.expose()), "{name:?}");
    }
    assert!(request.subprotocols.iter().all(|protocol| clean(protocol.expose())));
}
