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
    assert_eq!(machine.answer(prompt).finish, Some(FinishReason::Limit));
}

/// A prompt, its answer, and some more.
fn next_turn(prompt: &[Item], answer: &[u32], more: u32) -> Vec<Item> {
    let answer = answer.iter().map(|token| Item::Token(*token));
    prompt.iter().copied().chain(answer).chain(items(more, 10)).collect()
}

#[test]
fn an_answer_that_is_not_cached_is_computed_again_as_part_of_a_prompt() {
    for groups in [&[(None, 30)][..], &[(None, 30), (Some(70), 30)]] {
        let mut machine = Machine::new(spec(groups, 0), settings(4, 512, 64));
        let alone = |prompt: Vec<Item>, limit| Request { cache_answer: false, ..Request::new(prompt, limit) };
        let before = machine.submit(alone(items(0, 130), 90));
        machine.finish();
        let turn = next_turn(&items(0, 130), &machine.answer(before).tokens, 1);
        let after = machine.submit(alone(turn.clone(), 20));
        machine.finish();
        assert_eq!(machine.answer(after).tokens, machine.expected(&turn, 0, 20));
        assert_eq!(machine.answer(after).cached, [130]);
    }
}

#[test]
fn if_no_answer_is_cached_nothing_depends_on_who_gave_way() {
    let mut preempted = 0;
    for pages in 8..16 {
        let mut machine = machine(pages, settings(4, 64, 64));
        let answer = machine.expected(&items(0, 100), 0, 80);
        let of = |i| match i % 3 {
            0 => items(0, 100),
            1 => next_turn(&items(0, 100), &answer[..40], 1),
            _ => next_turn(&items(0, 100), &answer[..70], 2),
        };
        let prompts: Vec<_> = (0..6).map(of).collect();
        let request = |prompt: &Vec<Item>| Request { cache_answer: false, ..Request::new(prompt.clone(), 80) };
        let ids: Vec<_> = prompts.iter().map(|prompt| machine.submit(request(prompt))).collect();
        machine.finish();
        for (id, prompt) in ids.into_iter().zip(&prompts) {
            assert_eq!(machine.answer(id).tokens, machine.expected(prompt, 0, 80), "{pages} pages");
            preempted += machine.answer(id).preempted;
        }
    }
    assert!(preempted > 0);
}
