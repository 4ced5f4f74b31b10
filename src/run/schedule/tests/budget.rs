//! How many prompt rows a step has, and whose they are.

use super::*;
use crate::run::schedule::step_rates::StepRates;

/// A machine in which one sequence decodes.
fn decoding(settings: Settings) -> (Machine, RequestId) {
    let mut machine = machine(1000, settings);
    let id = machine.submit(request(999, 1, 10_000));
    machine.turn();
    (machine, id)
}

/// The pieces of the next steps.
fn next_pieces(machine: &mut Machine, steps: usize) -> Vec<Vec<(RequestId, usize)>> {
    let turn = |_| {
        machine.plan();
        let pieces = pieces(machine.step());
        machine.done();
        pieces
    };
    (0..steps).map(turn).collect()
}

#[test]
fn a_prompt_has_the_whole_batch_while_nobody_decodes() {
    let mut machine = machine(100, settings(4, 512, 16));
    let id = machine.submit(request(0, 1000, 5));
    assert_eq!(next_pieces(&mut machine, 2), [[(id, 512)], [(id, 488)]]);
}

#[test]
fn a_prompt_has_what_fits_in_the_time_of_a_step_while_others_decode() {
    for (speed, rows) in [(0, 16), (40, 32), (127, 64), (300, 256), (100_000, 512)] {
        let (mut machine, _) = decoding(settings(4, 512, speed));
        let id = machine.submit(request(0, 600, 5));
        assert_eq!(next_pieces(&mut machine, 1), [[(id, rows)]], "{speed} rows in a step's time");
    }
    let (mut machine, _) = decoding(settings(4, 10, 500));
    let id = machine.submit(request(0, 600, 5));
    assert_eq!(next_pieces(&mut machine, 1), [[(id, 10)]], "never more than the batch");
}

#[test]
fn the_speed_is_measured() {
    let mut rates = StepRates::new(100.0);
    let mut step = Step { prompt_items: items(0, 128), ..Step::default() };
    (0..50).for_each(|_| rates.measure(&step, Duration::from_millis(250)));
    assert_eq!(rates.budget(Duration::from_secs(1), 512), 256, "512 rows per second, from below");
    // Answers take 100 ms; with 64 prompt rows it takes 200 ms: 640 rows per second.
    let answers = Step::default();
    (0..50).for_each(|_| rates.measure(&answers, Duration::from_millis(100)));
    step.prompt_items.truncate(64);
    let seq = crate::state::Pool::new(&spec(&[], 0)).open(None, 0).unwrap();
    let (choice, token) = (ChoiceId { request: RequestId(0), choice: 0 }, TokenSource::Host(0));
    step.answers.push(AnswerRow { choice, seq, position: 0, token, priority: 0 });
    (0..50).for_each(|_| rates.measure(&step, Duration::from_millis(200)));
    assert_eq!(rates.budget(Duration::from_secs(1), 512), 512);
    assert_eq!(rates.budget(Duration::from_millis(110), 512), 64);
    rates.measure(&step, Duration::ZERO);
    assert_eq!(rates.budget(Duration::from_millis(110), 512), 64, "an unknown time is not counted");
}

#[test]
fn a_prompt_has_at_most_half_while_another_waits() {
    let mut machine = machine(1000, settings(4, 512, 16));
    let (a, b) = (machine.submit(request(0, 2000, 5)), machine.submit(request(1, 2000, 5)));
    assert_eq!(next_pieces(&mut machine, 1), [[(a, 256), (b, 256)]]);
    let c = machine.submit(request(2, 100, 5));
    assert_eq!(next_pieces(&mut machine, 1), [[(a, 256), (b, 256)]], "in the order of arrival");
    machine.scheduler.cancel(b);
    assert_eq!(next_pieces(&mut machine, 1), [[(a, 412), (c, 100)]], "what the last one leaves is the first one's");
}

#[test]
fn a_more_urgent_prompt_does_not_share() {
    let mut machine = machine(1000, settings(4, 512, 16));
    let late = machine.submit(Request { priority: 1, ..request(0, 2000, 5) });
    let soon = machine.submit(request(1, 600, 5));
    let expected = [vec![(soon, 512)], vec![(soon, 88), (late, 424)]];
    assert_eq!(next_pieces(&mut machine, 2), expected);
}

#[test]
fn short_prompts_go_first_four_times_in_a_row() {
    let (mut machine, _) = decoding(settings(40, 512, 64));
    let long = machine.submit(request(0, 1000, 5));
    let short: Vec<_> = (1..13).map(|i| machine.submit(request(i, 64, 1))).collect();
    let steps = next_pieces(&mut machine, 10);
    let first: Vec<_> = steps.iter().map(|step| step[0].0).collect();
    assert_eq!(first[..5], [short[0], short[1], short[2], short[3], long], "{steps:?}");
    assert_eq!(steps[0], [(short[0], 64)]);
}

#[test]
fn prompts_go_on_when_answers_have_all_outputs() {
    let mut machine = machine(100, Settings { outputs: 4, ..settings(8, 512, 64) });
    let decoding: Vec<_> = (0..4).map(|i| machine.submit(request(i, 10, 100))).collect();
    machine.turn();
    let id = machine.submit(Request { choices: 4, ..request(9, 20, 3) });
    assert_eq!(next_pieces(&mut machine, 2), [[(id, 19)], [(id, 1)]]);
    assert!(decoding.iter().all(|id| machine.answer(*id).tokens.len() == 2));
    machine.finish();
}
