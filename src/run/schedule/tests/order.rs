//! Who goes first: priorities, the order of arrival, turns.

use super::*;

#[test]
fn lower_numbers_go_first_and_among_equals_those_that_came_first() {
    let mut machine = machine(100, settings(1, 512, 512));
    let ids = [3, 0, 3, -2]
        .into_iter()
        .enumerate()
        .map(|(i, priority)| machine.submit(Request { priority, ..request(i as u32, 10, 1) }));
    let ids: Vec<_> = ids.collect();
    let positions: Vec<_> = ids.iter().map(|id| machine.scheduler.queue_position(*id)).collect();
    assert_eq!(positions, [Some(2), Some(1), Some(3), Some(0)]);
    let mut order = Vec::new();
    while machine.plan() {
        order.extend(pieces(machine.step()));
        machine.done();
    }
    assert_eq!(order, [(ids[3], 10), (ids[1], 10), (ids[0], 10), (ids[2], 10)]);
}

#[test]
fn all_that_decode_have_a_row_in_every_step() {
    let mut machine = machine(100, settings(32, 512, 16));
    let ids: Vec<_> = (0..20).map(|i| machine.submit(request(i, 10, 50))).collect();
    machine.turn();
    for _ in 0..10 {
        machine.plan();
        assert_eq!(answers(machine.step()), ids);
        machine.done();
    }
}

#[test]
fn too_many_take_turns() {
    let mut machine = machine(100, Settings { answer_rows: 4, ..settings(10, 512, 16) });
    let ids: Vec<_> = (0..10).map(|i| machine.submit(request(i, 10, 50))).collect();
    machine.turn();
    let mut rows = Vec::new();
    for _ in 0..5 {
        machine.plan();
        rows.extend(answers(machine.step()));
        machine.done();
    }
    assert!(ids.iter().all(|id| rows.iter().filter(|row| *row == id).count() == 2), "{rows:?}");
}

#[test]
fn a_step_has_answers_first_and_counts_its_rows_through() {
    let mut machine = machine(100, settings(4, 512, 64));
    let a = machine.submit(request(0, 5, 50));
    machine.turn();
    let b = machine.submit(request(1, 7, 50));
    machine.plan();
    let step = machine.step();
    assert_eq!((answers(step), pieces(step), step.rows()), (vec![a], vec![(b, 7)], 8));
    let outputs: Vec<_> = step.outputs().iter().map(|output| (output.choice, output.row, output.index)).collect();
    assert_eq!(outputs, [(first(a), 0, 1), (first(b), 7, 0)]);
}

#[test]
fn rows_run_ahead_of_their_tokens_only_if_the_device_draws() {
    let mut machine = machine(100, settings(4, 512, 64));
    let device = machine.submit(request(0, 5, 4));
    let host = machine.submit(Request { sampling: Sampling::Host, ..request(1, 5, 4) });
    assert!(machine.plan() && machine.plan());
    assert_eq!(answers(machine.step()), [device]);
    assert_eq!(machine.step().answers()[0].token, TokenSource::Device { output: 0 });
    assert!(!machine.plan(), "two steps are in flight");
    machine.done();
    assert!(machine.plan());
    let tokens: Vec<_> = machine.step().answers().iter().map(|row| (row.choice.request, row.token)).collect();
    let host_token = machine.answer(host).tokens[0];
    assert_eq!(tokens, [(device, TokenSource::Device { output: 0 }), (host, TokenSource::Host(host_token))]);
    (0..2).for_each(|_| machine.done());
    machine.finish();
    for (id, number) in [(device, 0), (host, 1)] {
        assert_eq!(machine.answer(id).tokens, machine.expected(&items(number, 5), 0, 4));
    }
}

#[test]
fn outcomes_must_be_of_the_oldest_step() {
    let mut machine = machine(100, settings(4, 512, 64));
    let id = machine.submit(request(0, 5, 50));
    assert!(machine.plan() && machine.plan());
    let (oldest, newest) = (machine.scheduler.oldest().unwrap().number(), machine.step().number());
    let token = [Outcome::Token(1)];
    let mut done = |number, outcomes: &[Outcome]| machine.scheduler.done(number, Duration::ZERO, outcomes);
    assert_eq!(done(newest, &token), Err(StepError::NotOldest { number: newest }));
    assert_eq!(done(oldest, &[]), Err(StepError::Outcomes { outputs: 1, given: 0 }));
    assert_eq!(done(oldest, &token), Ok(()));
    machine.scheduler.reset();
    assert_eq!(machine.scheduler.done(newest, Duration::ZERO, &token), Err(StepError::NotOldest { number: newest }));
    assert_eq!(machine.scheduler.items(first(id)).map(<[Item]>::len), Some(6));
}
