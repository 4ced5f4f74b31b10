//! A row keeps its role, whenever it is computed.

use super::*;

#[test]
fn a_lost_device_changes_no_token() {
    for lost_after in 1..40 {
        let mut machine = machine(30, settings(4, 64, 64));
        let ids: Vec<_> = (0..3).map(|i| machine.submit(request(i, 100, 20))).collect();
        for _ in 0..lost_after {
            machine.turn();
        }
        machine.plan();
        machine.reset();
        let late = machine.submit(request(9, 100, 20));
        machine.finish();
        for (id, i) in ids.into_iter().chain([late]).zip([0, 1, 2, 9]) {
            assert_eq!(machine.answer(id).tokens, machine.expected(&items(i, 100), 0, 20));
        }
        machine.check_empty();
    }
}

#[test]
fn what_ran_on_a_lost_device_goes_before_what_waits() {
    let mut machine = machine(30, settings(2, 512, 64));
    let ids: Vec<_> = (0..4).map(|i| machine.submit(request(i, 100, 20))).collect();
    machine.turn();
    machine.reset();
    let positions: Vec<_> = ids.iter().map(|id| machine.scheduler.queue_position(*id)).collect();
    assert_eq!(positions, [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(machine.scheduler.pool().usage(0).free, 30);
}

#[test]
fn what_was_drawn_is_fed_again_as_answer_rows() {
    let mut machine = machine(30, Settings { answer_rows: 8, ..settings(4, 512, 16) });
    let id = machine.submit(request(0, 100, 40));
    (0..30).for_each(|_| assert!(machine.turn()));
    machine.reset();
    machine.plan();
    assert_eq!((pieces(machine.step()), machine.step().outputs().len()), (vec![(id, 100)], 0));
    machine.done();
    for first in [100, 108, 116] {
        machine.plan();
        let positions: Vec<_> = machine.step().answers().iter().map(|row| row.position).collect();
        assert_eq!(positions, (first..first + 8).collect::<Vec<_>>());
        assert!(machine.step().answers().iter().all(|row| matches!(row.token, TokenSource::Host(_))));
        assert_eq!(machine.step().outputs().len(), 0);
        machine.done();
    }
    machine.plan();
    let output = machine.step().outputs()[0];
    assert_eq!((machine.step().answers().len(), output.row, output.index), (6, 5, 30));
    machine.done();
    machine.finish();
    assert_eq!(machine.answer(id).tokens, machine.expected(&items(0, 100), 0, 40));
}

#[test]
fn rows_that_are_fed_again_leave_others_their_time() {
    let mut machine = machine(100, settings(4, 512, 16));
    let a = machine.submit(request(0, 10, 200));
    (0..100).for_each(|_| assert!(machine.turn()));
    machine.reset();
    machine.scheduler.forget_prefixes();
    let b = machine.submit(request(1, 10, 200));
    machine.turn();
    let prompt = machine.submit(request(2, 100, 1));
    for _ in 0..4 {
        machine.plan();
        let rows = |id| answers(machine.step()).iter().filter(|row| **row == id).count();
        assert_eq!((rows(a), rows(b), pieces(machine.step())), (17, 1, vec![]));
        machine.done();
    }
    machine.finish();
    assert_eq!(machine.answer(prompt).finish, Some(Finish::Limit));
}
