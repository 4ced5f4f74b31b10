//! Ending requests before their time, without touching others.

use super::*;

/// Cancels one of three when it has come so far, and returns the answers of the others.
fn others(cancel_after: usize, in_flight: bool) -> Vec<machine::Answer> {
    let mut machine = machine(100, settings(2, 64, 64));
    let ids: Vec<_> = (0..3).map(|i| machine.submit(request(i, 150, 10))).collect();
    for _ in 0..cancel_after {
        machine.turn();
    }
    if in_flight {
        machine.plan();
    }
    assert!(machine.scheduler.cancel(ids[1]));
    assert!(!machine.scheduler.cancel(ids[1]));
    if in_flight {
        machine.done();
    }
    machine.finish();
    assert_eq!(machine.answer(ids[1]).finish, Some(FinishReason::Cancelled));
    machine.check_empty();
    [ids[0], ids[2]].map(|id| machine.answer(id)).to_vec()
}

#[test]
fn a_cancel_in_the_queue_in_the_prompt_or_in_the_answer_touches_no_other() {
    let undisturbed = [0, 2].map(|i| machine(100, settings(2, 64, 64)).expected(&items(i, 150), 0, 10));
    for cancel_after in 0..12 {
        for in_flight in [false, true] {
            let tokens: Vec<_> = others(cancel_after, in_flight).into_iter().map(|answer| answer.tokens).collect();
            assert_eq!(tokens, undisturbed, "after {cancel_after} steps");
        }
    }
}

#[test]
fn a_cancel_ends_all_choices_and_keeps_what_was_computed() {
    let mut machine = machine(100, settings(2, 512, 64));
    let id = machine.submit(Request { choices: 3, ..request(0, 200, 50) });
    (0..3).for_each(|_| assert!(machine.turn()));
    assert!(machine.scheduler.cancel(id));
    machine.take_events();
    for choice in 0..3 {
        assert_eq!(machine.answers[&ChoiceId { request: id, choice }].finish, Some(FinishReason::Cancelled));
    }
    assert!(machine.scheduler.is_idle());
    let again = machine.submit(request(0, 200, 1));
    machine.finish();
    assert_eq!(machine.answer(again).cached, [199]);
}

#[test]
fn a_request_that_is_not_there_cannot_be_cancelled() {
    let mut machine = machine(10, settings(2, 64, 64));
    let id = machine.submit(request(0, 10, 1));
    machine.finish();
    assert!(!machine.scheduler.cancel(id) && !machine.scheduler.cancel(RequestId(77)));
}

#[test]
fn deadlines_end_what_runs_and_what_waits() {
    let mut machine = machine(100, settings(1, 512, 64));
    let deadline = |seconds| Some(Duration::from_secs(seconds));
    let running = machine.submit(Request { deadline: deadline(5), ..request(0, 10, 1000) });
    let waiting = machine.submit(Request { deadline: deadline(3), ..request(1, 10, 1000) });
    let patient = machine.submit(Request { deadline: deadline(1000), ..request(2, 10, 3) });
    for second in 0..=5 {
        machine.now = Duration::from_secs(second);
        machine.plan();
        let late = |id| machine.answer(id).finish == Some(FinishReason::Deadline);
        assert_eq!((late(running), late(waiting)), (second >= 5, second >= 3), "second {second}");
        machine.done();
    }
    machine.finish();
    assert_eq!(machine.answer(patient).finish, Some(FinishReason::Limit));
}

#[test]
fn what_failed_is_not_cached() {
    let mut machine = machine(100, settings(1, 512, 64));
    let failed = machine.submit(request(0, 200, 5));
    machine.plan();
    machine.done_with(|_, _| Outcome::Failed);
    let again = machine.submit(request(0, 200, 5));
    machine.finish();
    assert_eq!((machine.answer(failed).finish, machine.answer(again).cached), (Some(FinishReason::Failed), vec![0]));
}
