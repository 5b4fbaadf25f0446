//! How many clients dial at the same time after they have lost one server.

use std::time::Duration;

#[allow(unreachable_pub, reason = "a program of its own")]
#[path = "../../examples/storm.rs"]
mod example;

use example::{DISASTERS, draw, storm};

/// Enough clients for the shape of the curve. The example has 100,000.
const CLIENTS: usize = 5_000;

/// The highest rate of dials is at most a tenth of the rate with phoenix.js.
#[test]
fn storm_is_a_tenth_of_phoenix_js() {
    let [deploy, takeover, outage] = DISASTERS.map(|disaster| storm(CLIENTS, disaster));

    let whole = Duration::ZERO;
    assert!(deploy.ours.peak(whole) * 10 <= deploy.theirs.peak(whole), "{deploy}");
    assert!(takeover.ours.peak(whole) * 10 <= takeover.theirs.peak(whole), "{takeover}");
    // One count starts at the kill and includes dials to a closed port. The other starts at the
    // restart.
    let back = outage.disaster.away;
    assert!(outage.ours.peak(whole) * 10 <= outage.theirs.peak(whole), "{outage}");
    assert!(outage.ours.peak(back) * 10 <= outage.theirs.peak(back), "{outage}");
}

/// Enough clients for a picture with the right shape, and few enough to draw it quickly.
const DRAWN: usize = 2_000;

#[test]
fn manual_picture_is_drawn_by_example() {
    let drawn = draw(DRAWN, &DISASTERS.map(|disaster| storm(DRAWN, disaster)));
    let manual = include_str!("../../src/manual/storm.svg");
    assert!(
        drawn == manual,
        "draw it again: --example storm {DRAWN} phx-proto/src/manual/storm.svg"
    );
    assert!(manual.len() < 20_000, "{} bytes", manual.len());
    assert!(!manual.contains("\n\n"), "a page of Markdown would end it there");
}
