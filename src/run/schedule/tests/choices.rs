//! Several answers to one prompt.

use super::*;

/// The answers to a prompt of 200 items with so many choices, and how many prompt rows they took.
fn run(mut machine: Machine, choices: usize) -> usize {
    let id = machine.submit(Request { choices, ..request(0, 200, 30) });
    let mut rows = 0;
    while machine.plan() {
        rows += machine.step().prompt_items().len();
        machine.done();
        machine.check();
    }
    for choice in 0..choices as u32 {
        let answer = &machine.answers[&ChoiceId { request: id, choice }];
        assert_eq!(answer.tokens, machine.expected(&items(0, 200), choice, 30));
        assert_eq!(answer.finish, Some(FinishReason::Limit));
    }
    machine.check_empty();
    rows
}

#[test]
fn choices_share_their_prompt() {
    assert_eq!(run(machine(100, settings(8, 512, 64)), 5), 200);
    let windows = spec(&[(None, 100), (Some(64), 100)], 0);
    assert_eq!(run(Machine::new(windows, settings(8, 512, 64)), 5), 200);
    assert_eq!(run(Machine::new(spec(&[(None, 100)], 12), settings(8, 512, 64)), 5), 200);
}

#[test]
fn choices_beyond_those_that_may_run_wait() {
    assert_eq!(run(machine(100, settings(2, 512, 64)), 7), 200);
    // Two slots are left for snapshots of the prompt.
    assert_eq!(run(Machine::new(spec(&[(None, 100)], 5), settings(2, 512, 64)), 7), 200);
    run(Machine::new(spec(&[(None, 100)], 5), settings(8, 512, 64)), 7);
}

#[test]
fn choices_run_one_after_another_if_pages_are_few() {
    run(machine(5, settings(8, 512, 64)), 7);
}

#[test]
fn all_choices_draw_their_first_token_from_one_row() {
    let mut machine = machine(100, settings(8, 512, 64));
    machine.submit(Request { choices: 3, ..request(0, 20, 5) });
    machine.plan();
    let outputs: Vec<_> = machine.step().outputs().iter().map(|output| (output.choice.choice, output.row)).collect();
    assert_eq!(outputs, [(0, 19), (1, 19), (2, 19)]);
    assert!(!machine.plan(), "no row runs ahead of the forks");
}

#[test]
fn a_choice_that_ends_at_once_does_not_end_the_others() {
    let mut machine = machine(100, settings(8, 512, 64));
    let id = machine.submit(Request { choices: 3, ..request(0, 20, 5) });
    machine.plan();
    machine.done_with(|output, token| match output.choice.choice {
        0 => Outcome::End,
        1 => Outcome::Failed,
        _ => Outcome::Token(token),
    });
    machine.finish();
    let finish = |choice| machine.answers[&ChoiceId { request: id, choice }].finish;
    assert_eq!(
        [0, 1, 2].map(finish),
        [Some(FinishReason::Stop), Some(FinishReason::Failed), Some(FinishReason::Limit)]
    );
    machine.check_empty();
}
