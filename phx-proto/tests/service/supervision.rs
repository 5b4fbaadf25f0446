//! The supervision machine, ending by ending, on virtual time.

use core::time::Duration;

use crate::cases::{cases, regressions};
use phx_proto::Time;
use phx_proto::service::{Ending, Restart, RestartPolicy, Supervision, Verdict};
use proptest::prelude::*;

fn supervision(restart: Restart) -> Supervision {
    Supervision::new(RestartPolicy::new(restart), 7)
}

const NOW: Time = Time::from_millis(1_000);

#[test]
fn policy_decides_which_ends_restart() {
    for (restart, ending, restarted) in [
        (Restart::Permanent, Ending::Closed, false),
        (Restart::Permanent, Ending::GaveUp, true),
        (Restart::Permanent, Ending::Crashed, true),
        (Restart::Transient, Ending::Closed, false),
        (Restart::Transient, Ending::GaveUp, false),
        (Restart::Transient, Ending::Crashed, true),
        (Restart::Temporary, Ending::Closed, false),
        (Restart::Temporary, Ending::GaveUp, false),
        (Restart::Temporary, Ending::Crashed, false),
    ] {
        let verdict = supervision(restart).ended(NOW, ending);
        let is_restart = matches!(verdict, Verdict::Restart { .. });
        assert_eq!(is_restart, restarted, "{restart:?} {ending:?}: {verdict:?}");
        assert!(restarted || verdict == Verdict::Stop);
    }
}

/// A restart after giving up would make the limit of retries meaningless.
#[test]
fn give_up_is_final_under_transient() {
    let mut supervision = supervision(Restart::Transient);
    assert_eq!(supervision.ended(NOW, Ending::GaveUp), Verdict::Stop);
    assert_eq!(supervision.restarts(), 0);
}

#[test]
fn give_up_waits_long_under_permanent() {
    let mut supervision = supervision(Restart::Permanent);
    let mut now = NOW;
    for seconds in [5, 15, 60, 300, 300] {
        let Verdict::Restart { delay } = supervision.ended(now, Ending::GaveUp) else {
            panic!("not restarted")
        };
        let nominal = Duration::from_secs(seconds);
        assert!(delay >= nominal / 2 && delay <= nominal, "{delay:?} of {nominal:?}");
        now += delay + Duration::from_secs(1);
    }
    supervision.stable();
    let Verdict::Restart { delay } = supervision.ended(now, Ending::GaveUp) else {
        panic!("not restarted")
    };
    assert!(delay <= Duration::from_secs(5), "delays start over after a stable connection");
    assert_eq!(supervision.restarts(), 6);
}

#[test]
fn too_many_restarts_are_final() {
    let policy = RestartPolicy::new(Restart::Transient).intensity(2, Duration::from_secs(10));
    let mut supervision = Supervision::new(policy, 7);
    assert!(matches!(supervision.ended(NOW, Ending::Crashed), Verdict::Restart { .. }));
    assert!(matches!(supervision.ended(NOW, Ending::Crashed), Verdict::Restart { .. }));
    assert_eq!(supervision.ended(NOW, Ending::Crashed), Verdict::Exhausted);
    // The same number of restarts is allowed if they are spread over more time.
    let later = NOW + Duration::from_secs(60);
    assert!(matches!(supervision.ended(later, Ending::Crashed), Verdict::Restart { .. }));
}

/// A restart that is exactly as old as the window still counts; a millisecond later it does not.
#[test]
fn restart_counts_until_window_has_passed() {
    let (window, millisecond) = (Duration::from_secs(10), Duration::from_millis(1));
    let policy = RestartPolicy::new(Restart::Transient).intensity(1, window);
    let mut supervision = Supervision::new(policy, 7);
    let Verdict::Restart { delay } = supervision.ended(NOW, Ending::Crashed) else {
        panic!("not restarted")
    };
    // A restart counts at the end of its delay, so the test needs the delay of the second restart in
    // advance. It asks a clone, which draws the same number.
    let next = match supervision.clone().ended(NOW + 2 * window, Ending::Crashed) {
        Verdict::Restart { delay } => delay,
        verdict => panic!("not restarted: {verdict:?}"),
    };
    let at_window = NOW + (delay + window) - next;
    assert_eq!(supervision.clone().ended(at_window, Ending::Crashed), Verdict::Exhausted);
    let restart = supervision.ended(at_window + millisecond, Ending::Crashed);
    assert_eq!(restart, Verdict::Restart { delay: next });
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![Just(Restart::Permanent), Just(Restart::Transient), Just(Restart::Temporary)]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![Just(Ending::Closed), Just(Ending::GaveUp), Just(Ending::Crashed)]
}

proptest! {
    #![proptest_config(cases(256, regressions!("supervision")))]

    /// In any order of endings, no window of the policy's length contains more restarts than the
    /// policy allows, every delay is one of the schedule's, and the same seed leads to the same
    /// decisions.
    #[test]
    fn intensity_is_never_exceeded(
        restart in restart(),
        max in 0_u32..5,
        within in 0_u64..20_000,
        seed in any::<u64>(),
        ends in prop::collection::vec((0_u64..10_000, ending(), any::<bool>()), 0..60),
    ) {
        let within = Duration::from_millis(within);
        let policy = RestartPolicy::new(restart).intensity(max, within);
        let mut supervision = Supervision::new(policy.clone(), seed);
        let mut twin = Supervision::new(policy, seed);
        let mut now = NOW;
        let mut starts: Vec<Time> = Vec::new();
        for (gap, ending, stable) in ends {
            now += Duration::from_millis(gap);
            if stable {
                supervision.stable();
                twin.stable();
            }
            let verdict = supervision.ended(now, ending);
            prop_assert_eq!(verdict, twin.ended(now, ending));
            if let Verdict::Restart { delay } = verdict {
                prop_assert!(delay >= Duration::from_millis(10));
                prop_assert!(delay <= Duration::from_secs(300));
                prop_assert!(ending != Ending::Closed && restart != Restart::Temporary);
                // Spent retries are final, unless the policy is permanent.
                prop_assert!(restart == Restart::Permanent || ending == Ending::Crashed);
                now += delay;
                starts.push(now);
                let recent = starts.iter().filter(|start| now.since(**start) <= within).count();
                prop_assert!(recent <= max as usize, "{recent} of {max}");
            }
        }
        prop_assert_eq!(supervision.restarts(), starts.len() as u64);
    }
}
