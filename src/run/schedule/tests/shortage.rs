//! Too few pages: who gives way, how often, and what is kept.

use super::*;

#[test]
fn the_least_urgent_youngest_gives_way() {
    let mut machine = machine(12, settings(8, 512, 512));
    let ids = [0, 1, 1, 0]
        .into_iter()
        .enumerate()
        .map(|(i, priority)| machine.submit(Request { priority, ..request(i as u32, 100, 150) }));
    let ids: Vec<_> = ids.collect();
    while machine.scheduler.counts().preemptions == 0 {
        assert!(machine.turn());
    }
    let preempted: Vec<_> = ids.iter().map(|id| machine.answer(*id).preempted).collect();
    assert_eq!(preempted, [0, 0, 1, 0]);
    assert_eq!(machine.scheduler.queue_position(ids[2]), Some(0));
    machine.finish();
    for (id, i) in ids.iter().zip(0..) {
        assert_eq!(machine.answer(*id).tokens, machine.expected(&items(i, 100), 0, 150));
    }
    machine.check_empty();
}

#[test]
fn one_that_gave_way_waits_at_the_front_of_its_class() {
    let mut machine = machine(10, settings(8, 512, 512));
    let (a, b) = (machine.submit(request(0, 200, 300)), machine.submit(request(1, 200, 300)));
    machine.turn();
    let late = machine.submit(request(2, 400, 1));
    let later = machine.submit(Request { priority: -1, ..request(3, 500, 1) });
    while machine.answer(b).preempted == 0 {
        assert!(machine.turn());
    }
    let positions = [a, b, late, later].map(|id| machine.scheduler.queue_position(id));
    assert_eq!(positions, [None, Some(1), Some(2), Some(0)]);
}

#[test]
fn one_that_gave_way_three_times_does_so_no_more() {
    for (times, expected) in [(2, [0, 1]), (3, [1, 0])] {
        let mut machine = machine(10, settings(8, 512, 512));
        let ids = [0, 1].map(|priority| machine.submit(Request { priority, ..request(priority as u32, 200, 150) }));
        machine.turn();
        machine.scheduler.running[1].sequence.preemptions = times;
        machine.finish();
        assert_eq!(ids.map(|id| machine.answer(id).preempted), expected, "after {times} times");
    }
}

#[test]
fn nobody_is_admitted_in_a_step_that_preempts() {
    let start = || {
        let mut machine = machine(10, settings(8, 512, 512));
        let b = [0, 1].map(|i| machine.submit(request(i, 200, 300)))[1];
        (machine, b)
    };
    let (mut machine, b) = start();
    let steps = (0..).take_while(|_| machine.turn() && machine.answer(b).preempted == 0).count();
    let (mut machine, b) = start();
    (0..steps).for_each(|_| assert!(machine.turn()));
    let urgent = machine.submit(Request { priority: -1, ..request(2, 10, 5) });
    machine.turn();
    assert_eq!((machine.answer(b).preempted, machine.scheduler.queue_position(urgent)), (1, Some(0)));
    machine.turn();
    assert_eq!(machine.scheduler.queue_position(urgent), None);
}

#[test]
fn what_gave_way_finds_its_pages_if_nobody_took_them() {
    let mut machine = machine(10, settings(8, 512, 512));
    let (_, b) = (machine.submit(request(0, 200, 128)), machine.submit(request(1, 200, 300)));
    machine.finish();
    let answer = machine.answer(b);
    assert_eq!(answer.preempted, 1);
    assert!(answer.cached[1] >= 256, "{:?}", answer.cached);
}

#[test]
fn a_sequence_alone_too_long_for_the_pool_ends() {
    for (window, ahead) in [(None, false), (None, true), (Some(1000), false), (Some(1000), true)] {
        let mut machine = Machine::new(spec(&[(window, 5)], 0), settings(8, 512, 512));
        let id = machine.submit(request(0, 100, 10_000));
        while !machine.scheduler.is_idle() {
            machine.plan();
            if ahead {
                machine.plan();
            }
            if machine.scheduler.oldest().is_some() {
                machine.done();
            }
        }
        let answer = machine.answer(id);
        assert_eq!((answer.finish, answer.tokens.len()), (Some(FinishReason::Context), 5 * 64 - 100 + 1));
        machine.check_empty();
    }
}

#[test]
fn an_answer_ends_at_the_limit_of_the_context() {
    let mut machine = machine(100, Settings { context: 120, ..settings(8, 512, 512) });
    let id = machine.submit(request(0, 100, 10_000));
    machine.finish();
    assert_eq!((machine.answer(id).finish, machine.answer(id).tokens.len()), (Some(FinishReason::Context), 21));
}

#[test]
fn a_piece_is_as_long_as_pages_allow() {
    let mut machine = Machine::new(spec(&[(Some(64), 4)], 0), settings(8, 512, 512));
    let id = machine.submit(request(0, 1000, 3));
    machine.plan();
    assert_eq!(pieces(machine.step()), [(id, 256)]);
    machine.done();
    machine.finish();
    assert_eq!(machine.answer(id).tokens, machine.expected(&items(0, 1000), 0, 3));
}

#[test]
fn the_tree_gives_up_a_page_that_a_sequence_alone_must_copy() {
    let mut machine = machine(3, settings(8, 512, 512));
    machine.submit(request(0, 190, 0));
    machine.finish();
    let prompt = [items(0, 180), items(1, 5)].concat();
    let id = machine.submit(Request::new(prompt.clone(), 2));
    machine.finish();
    assert_eq!((machine.answer(id).finish, machine.answer(id).cached), (Some(FinishReason::Limit), vec![180]));
    assert_eq!(machine.answer(id).tokens, machine.expected(&prompt, 0, 2));
}
