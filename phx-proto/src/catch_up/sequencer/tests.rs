use proptest::prelude::*;

use super::*;
use SequencerStep::{CaughtUp, Message, Rejoin};

type Step = SequencerStep<u64>;

fn sequencer(cursor: Cursor, contract: &Contract) -> Sequencer<u64> {
    Sequencer::new(cursor, contract, 3, 1_000)
}

fn after(position: u64) -> Sequencer<u64> {
    sequencer(Cursor::at(position), &Contract::in_response())
}

fn contiguous(position: u64) -> Sequencer<u64> {
    sequencer(Cursor::at(position), &Contract::in_response().contiguous())
}

const fn gap(after: u64, through: u64) -> Step {
    SequencerStep::Gap(Gap { after: Some(after), through: Some(through) })
}

const fn open_gap(after: Option<u64>) -> Step {
    SequencerStep::Gap(Gap { after, through: None })
}

fn steps(sequencer: &mut Sequencer<u64>) -> Vec<Step> {
    std::iter::from_fn(|| sequencer.next_step()).collect()
}

fn messages(positions: impl IntoIterator<Item = u64>) -> Vec<Step> {
    positions.into_iter().map(Message).collect()
}

fn live(sequencer: &mut Sequencer<u64>, position: u64) {
    sequencer.message(Some(position), position, 10);
}

/// The sequencer after its first join.
fn joined(mut sequencer: Sequencer<u64>) -> Sequencer<u64> {
    sequencer.joined();
    sequencer
}

fn replay(sequencer: &mut Sequencer<u64>, positions: impl IntoIterator<Item = u64>) {
    replay_named(sequencer, positions, (None, None));
}

/// A replay that names its oldest and its newest position.
fn replay_named(
    sequencer: &mut Sequencer<u64>,
    positions: impl IntoIterator<Item = u64>,
    (oldest, newest): (Option<u64>, Option<u64>),
) {
    let messages = positions.into_iter().map(|position| (Some(position), position)).collect();
    sequencer.replay(messages, oldest, newest);
}

/// A join whose replay brings these messages.
fn catch_up(sequencer: &mut Sequencer<u64>, positions: impl IntoIterator<Item = u64>) {
    sequencer.joined();
    replay(sequencer, positions);
    sequencer.replay_ended();
}

/// A join whose replay is empty and names these positions.
fn catch_up_named(sequencer: &mut Sequencer<u64>, oldest: u64, newest: u64) {
    sequencer.joined();
    replay_named(sequencer, [], (Some(oldest), Some(newest)));
    sequencer.replay_ended();
}

#[test]
fn live_messages_are_held_until_end() {
    let mut it = joined(after(5));
    live(&mut it, 8);
    replay(&mut it, [6]);
    assert_eq!(steps(&mut it), messages([6]), "replayed messages are not held");
    live(&mut it, 9);
    replay(&mut it, [7, 8]);
    assert!(it.is_replaying());
    it.replay_ended();
    assert_eq!(steps(&mut it), [Message(7), Message(8), CaughtUp, Message(9)]);
    assert!(!it.is_replaying());
}

/// The server subscribes the channel before it reads its messages, so a live message may be a copy of
/// a replayed one, and may arrive after the end of the replay.
#[test]
fn live_copies_of_replay_are_dropped() {
    let mut it = after(5);
    catch_up(&mut it, [6, 7]);
    for position in [6, 7, 8] {
        live(&mut it, position);
    }
    assert_eq!(steps(&mut it), [Message(6), Message(7), CaughtUp, Message(8)]);
}

#[test]
fn cursor_advances_when_step_is_taken() {
    let mut it = joined(after(5));
    replay(&mut it, [6, 7]);
    assert_eq!(it.cursor(), Cursor::at(5));
    assert_eq!(it.next_step(), Some(Message(6)));
    assert_eq!(it.cursor(), Cursor::at(6));
    // The next replay begins after the cursor, and brings 7 again.
    it.interrupted();
    catch_up(&mut it, [7, 8]);
    assert_eq!(steps(&mut it), [Message(7), Message(8), CaughtUp]);
}

/// The held messages come again with the next replay.
#[test]
fn interruption_forgets_held_messages() {
    let mut it = joined(after(5));
    live(&mut it, 9);
    it.interrupted();
    live(&mut it, 10);
    it.replay_ended();
    assert_eq!(steps(&mut it), []);
    catch_up(&mut it, 6..=10);
    assert_eq!(steps(&mut it), [messages(6..=10), vec![CaughtUp]].concat());
}

#[test]
fn message_without_position_is_never_held() {
    let mut it = after(5);
    it.message(None, 100, 10);
    it.joined();
    it.message(None, 101, 10);
    it.replay(vec![(Some(6), 6), (None, 102), (Some(7), 7)], None, None);
    assert_eq!(steps(&mut it), messages([100, 101, 6, 102, 7]));
    assert_eq!(it.cursor(), Cursor::at(7));
}

#[test]
fn forgotten_messages_are_a_gap() {
    let mut it = joined(after(5));
    replay_named(&mut it, [9], (Some(8), Some(9)));
    it.replay_ended();
    assert_eq!(steps(&mut it), [gap(5, 8), Message(9), CaughtUp]);
    // Exactly what the client has is not a gap.
    catch_up_named(&mut it, 9, 9);
    assert_eq!(steps(&mut it), [CaughtUp]);
    // A gap is reported once.
    for expected in [vec![gap(9, 20), CaughtUp], vec![CaughtUp]] {
        catch_up_named(&mut it, 20, 20);
        assert_eq!(steps(&mut it), expected);
    }
    assert_eq!(it.cursor(), Cursor::at(20));
}

/// Messages that arrived live before the server read its memory are not missing.
#[test]
fn gap_ends_before_held_messages() {
    let mut it = joined(after(5));
    live(&mut it, 8);
    live(&mut it, 9);
    replay_named(&mut it, [10], (Some(9), Some(10)));
    it.replay_ended();
    assert_eq!(steps(&mut it), [gap(5, 7), Message(8), Message(9), Message(10), CaughtUp]);
}

#[test]
fn contiguous_replay_reports_holes() {
    let mut it = contiguous(5);
    catch_up(&mut it, [8, 9, 11]);
    let expected = [gap(5, 7), Message(8), Message(9), gap(9, 10), Message(11), CaughtUp];
    assert_eq!(steps(&mut it), expected);
}

/// The server may still have the missing message.
#[test]
fn contiguous_live_hole_causes_rejoin() {
    let mut it = contiguous(5);
    catch_up(&mut it, []);
    live(&mut it, 6);
    live(&mut it, 8);
    live(&mut it, 9);
    assert_eq!(steps(&mut it), [CaughtUp, Message(6), Rejoin]);
    catch_up(&mut it, 7..=9);
    assert_eq!(steps(&mut it), [messages(7..=9), vec![CaughtUp]].concat());
}

/// A server that keeps nothing replays nothing, and names no oldest position.
#[test]
fn contiguous_hole_without_replay_is_a_gap() {
    let mut it = contiguous(5);
    catch_up(&mut it, []);
    live(&mut it, 8);
    assert_eq!(steps(&mut it), [CaughtUp, Rejoin]);
    catch_up(&mut it, []);
    live(&mut it, 9);
    assert_eq!(steps(&mut it), [gap(5, 8), CaughtUp, Message(9)]);
    // Messages that arrive before the end of such a replay begin after the gap.
    live(&mut it, 20);
    assert_eq!(steps(&mut it), [Rejoin]);
    it.interrupted();
    it.joined();
    live(&mut it, 24);
    live(&mut it, 25);
    it.replay_ended();
    assert_eq!(steps(&mut it), [gap(9, 23), CaughtUp, Message(24), Message(25)]);
    assert_eq!(it.cursor(), Cursor::at(25));
}

/// If the next replay brings only the message after the hole, the hole is a gap.
#[test]
fn contiguous_hole_is_reported_once() {
    let mut it = contiguous(5);
    catch_up(&mut it, []);
    live(&mut it, 8);
    assert_eq!(steps(&mut it), [CaughtUp, Rejoin]);
    it.joined();
    live(&mut it, 11);
    replay(&mut it, [8]);
    it.replay_ended();
    assert_eq!(steps(&mut it), [gap(5, 7), Message(8), CaughtUp, Rejoin], "11 is a new hole");
    it.joined();
    it.replay_failed();
    assert_eq!(steps(&mut it), [open_gap(Some(8))]);
    catch_up(&mut it, []);
    live(&mut it, 9);
    assert_eq!(steps(&mut it), [CaughtUp, Message(9)], "the open gap included the hole");
}

/// A replay that fails again and again, for example because of one invalid message, must not keep the
/// live messages from the consumer.
#[test]
fn contiguous_live_messages_follow_failed_replay() {
    let mut it = joined(contiguous(5));
    live(&mut it, 8);
    it.replay_failed();
    live(&mut it, 9);
    assert_eq!(steps(&mut it), [open_gap(Some(5)), Message(8), Message(9)]);
    live(&mut it, 11);
    assert_eq!(steps(&mut it), [Rejoin], "only the message after the gap may follow a hole");
    it.joined();
    it.replay_failed();
    it.interrupted();
    catch_up(&mut it, [12]);
    assert_eq!(steps(&mut it), [open_gap(Some(9)), gap(9, 11), Message(12), CaughtUp]);
}

#[test]
fn holes_mean_nothing_without_contiguous() {
    let mut it = after(5);
    catch_up(&mut it, [100, 200]);
    live(&mut it, 300);
    assert_eq!(steps(&mut it), [Message(100), Message(200), CaughtUp, Message(300)]);
}

#[test]
fn held_messages_are_bounded() {
    for weight in [10, 400] {
        let kept = if weight == 10 { 3 } else { 2 };
        let mut it = joined(after(5));
        for position in 7..=20 {
            it.message(Some(position), position, weight);
        }
        assert_eq!(it.held.len(), kept);
        replay(&mut it, [6]);
        it.replay_ended();
        let expected = [vec![Message(6), CaughtUp], messages((7..).take(kept)), vec![Rejoin]];
        assert_eq!(steps(&mut it), expected.concat());
    }
}

/// The bound is for messages that the replay may lack.
#[test]
fn copy_of_replayed_message_takes_no_space() {
    let mut it = joined(after(5));
    replay(&mut it, [6]);
    (6..=9).for_each(|position| live(&mut it, position));
    it.replay_ended();
    assert_eq!(steps(&mut it), [messages([6]), vec![CaughtUp], messages(7..=9)].concat());
}

#[test]
fn one_large_message_is_held() {
    let mut it = joined(after(5));
    it.message(Some(6), 6, 5_000);
    it.replay_ended();
    assert_eq!(steps(&mut it), [CaughtUp, Message(6)]);
}

#[test]
fn loss_on_the_way_causes_rejoin() {
    let mut it = joined(after(5));
    replay(&mut it, [6]);
    it.lost();
    live(&mut it, 20);
    it.replay_ended();
    assert_eq!(steps(&mut it), [Message(6), Rejoin]);
}

#[test]
fn failed_replay_is_an_open_gap() {
    let mut it = joined(after(5));
    live(&mut it, 7);
    it.replay_failed();
    it.replay_failed();
    live(&mut it, 8);
    assert_eq!(steps(&mut it), [open_gap(Some(5)), Message(7), Message(8)]);
    // A late part of the replay brings nothing new.
    replay(&mut it, [6, 7]);
    assert_eq!(it.cursor(), Cursor::at(8));
}

/// A server that keeps positions in memory and counts from one again.
#[test]
fn restarted_numbers_are_an_open_gap() {
    let mut it = after(500);
    catch_up_named(&mut it, 0, 3);
    assert_eq!(steps(&mut it), [open_gap(Some(500)), Rejoin]);
    assert_eq!(it.cursor(), Cursor::new());
    it.joined();
    replay_named(&mut it, 1..=3, (Some(0), Some(3)));
    it.replay_ended();
    assert_eq!(steps(&mut it), [messages(1..=3), vec![CaughtUp]].concat());
}

/// Without a position the server may replay nothing. The position that it names is where the consumer
/// continues after an interruption that comes before the first message.
#[test]
fn first_join_takes_newest_position() {
    let mut it = sequencer(Cursor::new(), &Contract::in_response());
    catch_up_named(&mut it, 3, 40);
    assert_eq!(it.cursor(), Cursor::new());
    assert_eq!(steps(&mut it), [CaughtUp]);
    assert_eq!(it.cursor(), Cursor::at(40));
    live(&mut it, 41);
    assert_eq!(steps(&mut it), messages([41]));
}

#[test]
fn consumer_may_begin_on_joined_channel() {
    let mut it = sequencer(Cursor::new(), &Contract::in_response().contiguous());
    it.begin_live();
    live(&mut it, 41);
    live(&mut it, 42);
    assert_eq!((steps(&mut it), it.cursor()), (messages([41, 42]), Cursor::at(42)));
}

/// A driver that reports a join without an interruption before it, after messages of the first join
/// exceeded the bound.
#[test]
fn second_join_forgets_the_first() {
    let mut it = joined(after(5));
    (7..=10).for_each(|position| live(&mut it, position));
    catch_up(&mut it, 6..=10);
    assert_eq!(steps(&mut it), [messages(6..=10), vec![CaughtUp]].concat());
}

/// The bound was exceeded during the first join. The replay of the second brings every message.
#[test]
fn interruption_forgets_overflow() {
    let mut it = joined(after(5));
    (7..=10).for_each(|position| live(&mut it, position));
    it.interrupted();
    catch_up(&mut it, 6..=10);
    assert_eq!(steps(&mut it), [messages(6..=10), vec![CaughtUp]].concat());
}

/// A consumer without a position holds 1 to 3 back, and drops 4 and 5. The server has forgotten 4 when it reads
/// its stored messages, so the replay begins with 5.
#[test]
fn forgotten_overflow_before_first_position_is_gap() {
    let mut it = joined(sequencer(Cursor::new(), &Contract::in_response()));
    (1..=5).for_each(|position| live(&mut it, position));
    replay_named(&mut it, [5], (Some(4), Some(5)));
    it.replay_ended();
    let expected = [messages(1..=3), vec![gap(3, 4), Message(5), CaughtUp, Rejoin]].concat();
    assert_eq!(steps(&mut it), expected);
}

/// Message 2 never arrived, and positions are contiguous.
#[test]
fn hole_before_forgotten_overflow_is_gap() {
    let mut it = joined(sequencer(Cursor::new(), &Contract::in_response().contiguous()));
    [1, 3, 4, 5, 6].into_iter().for_each(|position| live(&mut it, position));
    replay_named(&mut it, [6], (Some(5), Some(6)));
    it.replay_ended();
    let rest = [messages(3..=4), vec![gap(4, 5), Message(6), CaughtUp, Rejoin]].concat();
    assert_eq!(steps(&mut it), [vec![Message(1), gap(1, 2)], rest].concat());
}

/// Held messages that came out of order are delivered in order, and no gap contains one of them.
#[test]
fn forgotten_overflow_may_be_out_of_order() {
    for contract in [Contract::in_response(), Contract::in_response().contiguous()] {
        let mut it = joined(sequencer(Cursor::new(), &contract));
        [1, 3, 2, 4, 5].into_iter().for_each(|position| live(&mut it, position));
        replay_named(&mut it, [5], (Some(4), Some(5)));
        it.replay_ended();
        let rest = vec![gap(3, 4), Message(5), CaughtUp, Rejoin];
        assert_eq!(steps(&mut it), [messages(1..=3), rest].concat());
    }
}

/// A held message that came after a greater one is delivered before the replay, whose messages are newer.
#[test]
fn held_messages_are_delivered_in_order() {
    let mut it = joined(sequencer(Cursor::new(), &Contract::in_response()));
    [1, 6, 2, 3, 4].into_iter().for_each(|position| live(&mut it, position));
    replay_named(&mut it, [5, 6], (Some(4), Some(6)));
    it.replay_ended();
    assert_eq!(steps(&mut it), [messages([1, 2, 5, 6]), vec![CaughtUp, Rejoin]].concat());
}

/// Two messages of 500 bytes are exactly the bound, in the first replay and in the second one.
#[test]
fn byte_bound_counts_one_replay() {
    let mut it = joined(after(5));
    let hold = |it: &mut Sequencer<u64>| {
        [7, 8].into_iter().for_each(|position| it.message(Some(position), position, 500));
    };
    hold(&mut it);
    it.interrupted();
    it.joined();
    hold(&mut it);
    it.replay_ended();
    assert_eq!(steps(&mut it), [CaughtUp, Message(7), Message(8)]);
}

/// A replayed copy of a held message frees the bytes of that message.
#[test]
fn replayed_copy_frees_held_bytes() {
    let mut it = joined(after(5));
    [7, 8].into_iter().for_each(|position| it.message(Some(position), position, 500));
    replay(&mut it, [6, 7]);
    it.message(Some(9), 9, 500);
    it.replay_ended();
    assert_eq!(steps(&mut it), [Message(6), Message(7), CaughtUp, Message(8), Message(9)]);
}

/// Messages that the replay brought before it failed can still arrive live.
#[test]
fn live_copy_after_failed_replay_is_dropped() {
    let mut it = joined(after(5));
    replay(&mut it, [6, 7]);
    it.replay_failed();
    live(&mut it, 7);
    live(&mut it, 8);
    assert_eq!(steps(&mut it), [Message(6), Message(7), open_gap(Some(7)), Message(8)]);
}

/// Only the first join names the newest position, and it is interrupted before the end of its replay.
#[test]
fn newest_position_belongs_to_one_join() {
    let mut it = joined(sequencer(Cursor::new(), &Contract::in_response()));
    replay_named(&mut it, [], (None, Some(40)));
    it.interrupted();
    catch_up(&mut it, []);
    assert_eq!((steps(&mut it), it.cursor()), (vec![CaughtUp], Cursor::new()));
}

/// The position of the message that followed the hole has no meaning among the new numbers.
#[test]
fn restarted_numbers_forget_the_hole() {
    let mut it = contiguous(500);
    catch_up(&mut it, []);
    live(&mut it, 503);
    assert_eq!(steps(&mut it), [CaughtUp, Rejoin]);
    catch_up_named(&mut it, 0, 3);
    assert_eq!(steps(&mut it), [open_gap(Some(500)), Rejoin]);
    catch_up(&mut it, 1..=3);
    assert_eq!(steps(&mut it), [messages(1..=3), vec![CaughtUp]].concat());
}

/// A sequencer that is used again: no replay precedes these messages, so none of them is a copy of a
/// replayed message.
#[test]
fn live_beginning_forgets_the_replay() {
    let mut it = after(5);
    catch_up(&mut it, [6, 7]);
    assert_eq!(steps(&mut it), [Message(6), Message(7), CaughtUp]);
    it.begin_live();
    live(&mut it, 7);
    assert_eq!(steps(&mut it), messages([7]));
}

/// Without the contract: messages out of order and twice, a replay out of order, and impossible
/// positions.
#[test]
fn broken_contract_is_at_least_once() {
    let mut it = after(5);
    catch_up(&mut it, [9, 7, 7, 8, 3]);
    for position in [12, 11, 12, 10] {
        live(&mut it, position);
    }
    let expected = [messages([7, 8, 9]), vec![CaughtUp], messages([12, 11, 12, 10])].concat();
    assert_eq!((steps(&mut it), it.cursor()), (expected, Cursor::at(12)));

    let mut it = joined(contiguous(0));
    it.replay(vec![(Some(0), 0), (Some(u64::MAX), 1)], Some(7), Some(3));
    it.replay_ended();
    live(&mut it, 0);
    assert_eq!(steps(&mut it), [gap(0, u64::MAX - 1), Message(1), CaughtUp]);
}

/// What happens to a topic with contiguous positions whose server names neither its oldest nor its newest
/// position.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A message is sent live.
    Send,
    /// A message is stored, and lost on its way to the client.
    Lose,
    /// The server forgets all but the newest messages.
    Forget(u64),
    Interrupt,
    /// The next replay is invalid.
    Fail,
    /// A message is sent live during the next replay.
    SendDuringReplay,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Send),
        2 => Just(Op::Lose),
        2 => (0_u64..4).prop_map(Op::Forget),
        2 => Just(Op::Interrupt),
        1 => Just(Op::Fail),
        2 => Just(Op::SendDuringReplay),
    ]
}

struct Contiguous {
    it: Sequencer<u64>,
    newest: u64,
    forgotten: u64,
    front: u64,
    open: bool,
    fails: bool,
    sends: bool,
    joins: usize,
}

impl Contiguous {
    fn join(&mut self) {
        self.joins += 1;
        self.it.joined();
        if core::mem::take(&mut self.sends) {
            self.newest += 1;
            live(&mut self.it, self.newest);
        }
        if core::mem::take(&mut self.fails) {
            return self.it.replay_failed();
        }
        let since = self.it.cursor().position().unwrap_or_default();
        let first = since.max(self.forgotten) + 1;
        replay(&mut self.it, first..=self.newest);
        self.it.replay_ended();
    }

    fn take(&mut self) -> Result<(), TestCaseError> {
        while let Some(step) = self.it.next_step() {
            match step {
                Message(position) => {
                    let follows = position == self.front + 1;
                    prop_assert!(follows || (self.open && position > self.front));
                    (self.front, self.open) = (position, false);
                }
                SequencerStep::Gap(Gap { after, through }) => {
                    prop_assert_eq!(after, Some(self.front));
                    self.open = through.is_none();
                    if let Some(through) = through {
                        // Every message of the gap is forgotten.
                        prop_assert!(through > self.front && through <= self.forgotten);
                        self.front = through;
                    }
                }
                CaughtUp => self.open = false,
                Rejoin => {
                    prop_assert!(self.joins < 200, "it joins again and again");
                    self.join();
                }
            }
        }
        Ok(())
    }

    fn happen(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Send => {
                self.newest += 1;
                live(&mut self.it, self.newest);
            }
            Op::Lose => self.newest += 1,
            Op::Forget(kept) => {
                self.forgotten = self.forgotten.max(self.newest.saturating_sub(kept));
            }
            Op::Interrupt => {
                self.it.interrupted();
                self.take()?;
                self.join();
            }
            Op::Fail => self.fails = true,
            Op::SendDuringReplay => self.sends = true,
        }
        self.take()
    }
}

proptest! {
    /// Each message comes once and in order, gaps are exactly what the server has forgotten, and the
    /// consumer sees what is sent next, whatever happened before.
    #[test]
    fn contiguous_consumer_always_goes_on(ops in proptest::collection::vec(op(), 0..60)) {
        let (it, newest) = (contiguous(5), 5);
        let mut world = Contiguous {
            it, newest, forgotten: 5, front: 5, open: false, fails: false, sends: false, joins: 0,
        };
        world.join();
        for op in ops {
            world.happen(op)?;
        }
        // A server that keeps nothing, and loses nothing from now on.
        world.fails = false;
        for _ in 0..3 {
            world.happen(Op::Forget(0))?;
            world.happen(Op::Send)?;
        }
        prop_assert_eq!(world.it.cursor(), Cursor::at(world.newest));
        prop_assert!(world.joins <= 64, "{} joins", world.joins);
    }

    /// The first replay of a consumer without a position, while live messages arrive. The server has lost some of
    /// these, and has forgotten the oldest messages. The consumer sees each message after its first one, or a gap.
    #[test]
    fn first_replay_leaves_no_hole(
        arrives in proptest::collection::vec(any::<bool>(), 1..10),
        forgotten in 0_u64..10,
    ) {
        let newest = arrives.len() as u64;
        let oldest = forgotten.min(newest);
        let mut it = joined(sequencer(Cursor::new(), &Contract::in_response().contiguous()));
        for (position, _) in (1..).zip(&arrives).filter(|(_, arrives)| **arrives) {
            live(&mut it, position);
        }
        replay_named(&mut it, oldest + 1..=newest, (Some(oldest), Some(newest)));
        it.replay_ended();
        let mut front = None;
        for step in steps(&mut it) {
            front = match step {
                Message(position) => {
                    prop_assert!(front.is_none_or(|front| position == front + 1));
                    Some(position)
                }
                SequencerStep::Gap(Gap { after, through }) => {
                    prop_assert_eq!(after, front);
                    prop_assert!(through <= Some(oldest));
                    through
                }
                CaughtUp | Rejoin => front,
            };
        }
    }
}
