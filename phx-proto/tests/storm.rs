//! How many clients that lost one server dial at the same time.

use std::time::Duration;

#[allow(unreachable_pub, reason = "a program of its own")]
#[path = "../examples/storm.rs"]
mod storm;

use storm::{DISASTERS, storm};

/// Enough for the shape; the example does 100,000.
const CLIENTS: usize = 5_000;

#[test]
fn a_server_that_is_there_again_meets_a_tenth_of_the_storm_of_phoenix_js() {
    let [deploy, takeover, outage] = DISASTERS.map(|disaster| storm(CLIENTS, disaster));

    let whole = Duration::ZERO;
    assert!(deploy.ours.peak(whole) * 10 <= deploy.theirs.peak(whole), "{deploy}");
    assert!(takeover.ours.peak(whole) * 10 <= takeover.theirs.peak(whole), "{takeover}");
    // From the kill on, with what dials a closed port; and from when somebody listens again.
    let back = outage.disaster.away;
    assert!(outage.ours.peak(whole) * 10 <= outage.theirs.peak(whole), "{outage}");
    assert!(outage.ours.peak(back) * 10 <= outage.theirs.peak(back), "{outage}");
}
