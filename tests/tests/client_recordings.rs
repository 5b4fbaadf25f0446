//! The client against every recording that it could have been the client of.
//!
//! Both ways: each recorded client frame must be what the client sends when it is told to do so
//! (JSON with its payload to the byte, binary to the byte, refs renamed by order of first use),
//! and after each server frame the client must have told exactly what an independent reading of
//! the recording foretells, nothing more and nothing less.

use phx_tests::classes::{Class, TABLE};
use phx_tests::conversation::Conversation;
use phx_tests::foretold::{Pushes, foretell};
use phx_tests::golden_client::run;
use phx_tests::recording;
use phx_tests::told::Told;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Compared {
    conversations: u64,
    sent: u64,
    received: u64,
    told: u64,
}

fn play(
    conversation: &Conversation,
    pushes: Pushes,
    compared: &mut Compared,
) -> Result<(), String> {
    let foretold = foretell(conversation, pushes)?;
    let run = run(conversation, pushes, &foretold)?;
    for index in 0..foretold.told.len().max(run.told.len()) {
        let (expected, actual) = (foretold.told.get(index), run.told.get(index));
        let alike = matches!((expected, actual), (Some(e), Some(a)) if Told::allows(e, a));
        if !alike {
            return Err(format!("told {index}:\n  foretold {expected:?}\n  ours     {actual:?}"));
        }
    }
    let stats = &run.stats;
    let counted = [
        ("frames sent", foretold.frames_out, stats.frames_out),
        ("frames compared", foretold.frames_out, run.sent),
        ("frames received", foretold.frames_in, stats.frames_in),
        ("frames fed", foretold.frames_in, run.received),
        ("messages", foretold.messages, stats.messages),
        ("messages dropped", 0, stats.messages_not_joined),
        ("stale frames", foretold.stale_frames, stats.stale_frames),
        ("late replies", foretold.late_replies, stats.late_replies),
        ("stale inputs", foretold.stale_inputs, stats.stale_inputs),
        ("protocol errors", 0, stats.protocol_errors),
        ("pushes without an outcome", 0, (stats.queued_pushes + stats.pushes_in_flight) as u64),
    ];
    for (what, expected, actual) in counted {
        if expected != actual {
            return Err(format!("{what}: {actual}, foretold {expected}"));
        }
    }
    compared.conversations += 1;
    compared.sent += run.sent;
    compared.received += run.received;
    compared.told += run.told.len() as u64;
    Ok(())
}

fn play_conforming(pushes: Pushes) {
    let conforming = TABLE.iter().filter(|(_, class)| *class == Class::Conforming);
    let mut compared = Compared::default();
    let mut files = 0;
    let mut failures = Vec::new();
    for (name, _) in conforming {
        files += 1;
        for conversation in Conversation::all(&recording::load(name)) {
            if let Err(difference) = play(&conversation, pushes, &mut compared) {
                failures.push(format!("{} ({pushes:?}): {difference}", conversation.name));
            }
        }
    }
    println!("{files} conforming recordings, pushes as {pushes:?}: {compared:?}");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_client_sends_and_tells_what_is_recorded() {
    play_conforming(Pushes::Calls);
}

#[test]
fn casts_look_the_same_on_the_wire_and_their_replies_are_dropped() {
    play_conforming(Pushes::Casts);
}
