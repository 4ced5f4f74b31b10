//! Who runs: sequences, pages, prefixes that others have computed or are computing.

use super::*;

fn counts(machine: &Machine) -> (usize, usize) {
    let Counts { running, waiting, .. } = machine.scheduler.counts();
    (running, waiting)
}

#[test]
fn what_can_never_run_is_refused() {
    let mut scheduler =
        Scheduler::new(spec(&[(None, 4), (Some(64), 2)], 0), Settings { queue: 1, outputs: 8, ..Settings::default() });
    let refused = |scheduler: &mut Scheduler, request| scheduler.submit(request).unwrap_err();
    assert_eq!(refused(&mut scheduler, request(0, 0, 5)), SubmitError::EmptyPrompt);
    let error = refused(&mut scheduler, request(0, 257, 5));
    assert_eq!(error, SubmitError::PromptTooLong { prompt: 257, context: 256 });
    assert!(error.to_string().contains("257 tokens, which exceeds the available context size of 256"));
    for asked in [0, 9] {
        let error = refused(&mut scheduler, Request { choices: asked, ..request(0, 10, 5) });
        assert_eq!(error, SubmitError::Choices { asked, most: 8 });
    }
    scheduler.submit(request(0, 256, 5)).unwrap();
    assert_eq!(refused(&mut scheduler, request(0, 1, 5)), SubmitError::QueueFull { waiting: 1 });
}

#[test]
fn at_most_so_many_sequences_run() {
    let mut machine = machine(100, settings(3, 512, 512));
    for i in 0..5 {
        machine.submit(request(i, 10, 2));
    }
    machine.plan();
    assert_eq!(counts(&machine), (3, 2));
    machine.done();
    machine.turn();
    machine.plan();
    assert_eq!(counts(&machine), (2, 0));
}

#[test]
fn a_prompt_waits_until_there_are_pages_for_it_and_one_for_each() {
    let mut machine = machine(100, settings(8, 512, 512));
    // 48 and 47 pages with the next token; one each and two of a hundred must be left.
    let a = machine.submit(request(0, 48 * 64 - 1, 2));
    let b = machine.submit(request(1, 48 * 64, 2));
    machine.plan();
    assert_eq!(counts(&machine), (1, 1));
    machine.scheduler.cancel(b);
    machine.submit(request(1, 48 * 64 - 1, 2));
    machine.done();
    machine.plan();
    assert_eq!(counts(&machine), (2, 0));
    assert_eq!(machine.answer(a).preempted, 0);
}

#[test]
fn one_that_does_not_fit_is_not_overtaken() {
    let mut machine = machine(20, settings(8, 512, 512));
    machine.submit(request(0, 600, 100));
    machine.turn();
    let big = machine.submit(request(1, 700, 1));
    let small = machine.submit(request(2, 10, 1));
    machine.turn();
    assert_eq!((machine.scheduler.queue_position(big), machine.scheduler.queue_position(small)), (Some(0), Some(1)));
    machine.finish();
    assert_eq!(machine.answer(big).finish, Some(FinishReason::Limit));
}

#[test]
fn a_prompt_as_long_as_the_pool_runs_alone() {
    let mut machine = machine(10, settings(8, 512, 512));
    let id = machine.submit(request(0, 640, 5));
    machine.submit(request(1, 10, 5));
    machine.finish();
    assert_eq!((machine.answer(id).tokens.len(), machine.answer(id).finish), (1, Some(FinishReason::Context)));
    machine.check_empty();
}

#[test]
fn sixteen_equal_prompts_are_computed_once() {
    for spec in [spec(&[(None, 60)], 0), spec(&[(None, 60), (Some(128), 80)], 0), spec(&[(None, 60)], 24)] {
        let mut machine = Machine::new(spec, settings(16, 512, 512));
        let prompt = |i: u32| [items(0, 1000), items(i, 10)].concat();
        let ids: Vec<_> = (1..17).map(|i| machine.submit(Request::new(prompt(i), 20))).collect();
        let mut rows = 0;
        while machine.plan() {
            assert!(rows > 0 || counts(&machine) == (16, 0), "pages that will be shared count once");
            rows += machine.step().prompt_items().len();
            machine.done();
            machine.check();
        }
        assert_eq!(rows, 1000 + 16 * 10);
        for (id, i) in ids.iter().zip(1..) {
            assert_eq!(machine.answer(*id).tokens, machine.expected(&prompt(i), 0, 20));
            assert_eq!(machine.answer(*id).preempted, 0);
            assert_eq!(machine.answer(*id).cached.last(), Some(&if i == 1 { 0 } else { 1000 }));
        }
        machine.check_empty();
    }
}

#[test]
fn one_that_waits_for_another_goes_on_if_that_one_ends() {
    let mut machine = machine(100, settings(4, 128, 512));
    let a = machine.submit(request(0, 1000, 5));
    let b = machine.submit(request(0, 1000, 5));
    (0..3).for_each(|_| assert!(machine.turn()));
    assert_eq!(machine.scheduler.running.iter().filter(|running| running.leader.is_some()).count(), 1);
    machine.scheduler.cancel(a);
    machine.plan();
    assert_eq!(machine.step().pieces()[0].positions, 384..512);
    machine.done();
    machine.finish();
    assert_eq!(machine.answer(b).tokens, machine.expected(&items(0, 1000), 0, 5));
}

#[test]
fn a_prompt_without_a_salt_is_never_shared() {
    let mut machine = machine(100, settings(4, 512, 512));
    for _ in 0..2 {
        let ids: Vec<_> = (0..2).map(|_| machine.submit(Request { salt: None, ..request(0, 200, 2) })).collect();
        machine.finish();
        assert!(ids.iter().all(|id| machine.answer(*id).cached == [0]));
    }
    assert_eq!(machine.scheduler.pool().usage(0).free, 100);
}

#[test]
fn a_prompt_that_draws_nothing_is_cached() {
    let mut machine = machine(100, settings(4, 512, 512));
    let id = machine.submit(request(0, 200, 0));
    machine.finish();
    assert_eq!((machine.answer(id).finish, machine.answer(id).tokens.len()), (Some(FinishReason::Limit), 0));
    let again = machine.submit(request(0, 200, 1));
    machine.finish();
    assert_eq!(machine.answer(again).cached, [199]);
}

#[test]
fn pages_that_windows_let_go_admit_what_waits() {
    let mut machine = Machine::new(spec(&[(Some(64), 12)], 0), settings(8, 512, 512));
    machine.submit(request(0, 500, 1000));
    machine.turn();
    let id = machine.submit(request(1, 400, 1));
    let steps = (0..1000).take_while(|_| machine.turn() && machine.answer(id).finish.is_none()).count();
    assert!(steps < 70, "{steps} steps");
}

#[test]
fn requests_fail_if_the_pool_has_no_slot_for_them() {
    let mut machine = Machine::new(spec(&[(None, 10)], 1), settings(8, 512, 512));
    let id = machine.submit(request(0, 10, 5));
    assert!(!machine.turn());
    assert_eq!(machine.answer(id).finish, Some(FinishReason::Failed));
}

#[test]
fn an_urgent_prompt_waits_for_no_other() {
    let mut machine = machine(100, settings(4, 128, 512));
    machine.submit(Request { priority: 1, ..request(0, 1000, 5) });
    machine.turn();
    let urgent = machine.submit(request(0, 1000, 5));
    machine.plan();
    assert_eq!((pieces(machine.step()), machine.answer(urgent).cached), (vec![(urgent, 128)], vec![128]));
}

#[test]
fn a_prompt_that_others_have_computed_needs_no_pages() {
    let mut machine = machine(20, settings(4, 1024, 512));
    machine.submit(Request { priority: 1, ..request(0, 700, 100) });
    machine.plan();
    let urgent = machine.submit(request(0, 710, 5));
    machine.plan();
    assert_eq!(machine.scheduler.queue_position(urgent), Some(0), "twelve pages are too many");
    machine.done();
    machine.plan();
    assert_eq!(machine.answer(urgent).cached, [700]);
}

#[test]
fn nobody_waits_for_a_snapshot_that_comes_too_late() {
    let mut machine = Machine::new(spec(&[(None, 60), (Some(64), 60)], 0), settings(4, 512, 512));
    machine.submit(request(0, 600, 5));
    machine.plan();
    let late = machine.submit(Request::new([items(0, 200), items(1, 50)].concat(), 5));
    machine.plan();
    assert_eq!(pieces(machine.step())[1], (late, 250));
}

#[test]
fn the_same_prompt_is_found_again_but_for_its_last_item() {
    for spec in [spec(&[(None, 60)], 0), spec(&[(None, 60), (Some(128), 80)], 0), spec(&[(None, 60)], 8)] {
        let mut machine = Machine::new(spec, settings(4, 128, 512));
        for cached in [0, 299] {
            let id = machine.submit(request(0, 300, 5));
            machine.finish();
            assert_eq!(machine.answer(id).cached, [cached]);
            assert_eq!(machine.answer(id).tokens, machine.expected(&items(0, 300), 0, 5));
        }
    }
}

#[test]
fn nobody_waits_for_one_that_was_admitted_later() {
    let mut machine = machine(100, settings(4, 128, 512));
    let ids = [0, 1].map(|_| machine.submit(request(0, 1000, 5)));
    machine.turn();
    // As if the first had been preempted, and had come back: it may wait for the second now.
    machine.scheduler.running[0].admission = 99;
    machine.plan();
    assert_eq!(pieces(machine.step()), ids.map(|id| (id, 64)));
}

#[test]
fn nobody_waits_for_less_than_a_page() {
    let mut machine = machine(100, settings(4, 512, 512));
    let ids = [1, 2].map(|i| machine.submit(Request::new([items(0, 63), items(i, 100)].concat(), 5)));
    machine.plan();
    assert_eq!(pieces(machine.step()), ids.map(|id| (id, 163)));
}
