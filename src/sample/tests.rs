//! The chain as a whole: against the reference, against itself on other days, and against bad input.

use super::*;
use crate::base::ErrorKind;
use proptest::prelude::*;
use serde_json::Value;

/// A model of `tokens` tokens without breakers.
fn info(tokens: usize) -> VocabInfo<'static> {
    VocabInfo { tokens, context: 64, dry_breakers: &[] }
}

fn sampler(options: &SamplerOptions, tokens: usize) -> Sampler {
    Sampler::new(options, &info(tokens)).unwrap()
}

/// Everything off: the plain draw.
fn nothing() -> SamplerOptions {
    SamplerOptions { samplers: String::new(), temp: 1.0, seed: Some(1), ..Default::default() }
}

/// Some logits of a vocabulary of `n`, by a fixed rule: roughly normal, deviation 2.
fn some_logits(n: u32) -> Vec<f32> {
    (0..n).map(|i| (0..4).map(|k| uniform(99, (4 * i + k) as u64) * 4.0 - 2.0).sum::<f32>() * 0.87).collect()
}

/// The options of a reference chain: `[[name, arguments…], …]`, arguments in llama.cpp's order.
fn options_of(chain: &[Value]) -> SamplerOptions {
    let mut o = nothing();
    let mut order = Vec::new();
    for step in chain {
        let name = step[0].as_str().expect("a name");
        let x = |i: usize| step[i].as_f64().unwrap_or_else(|| panic!("{step}: argument {i}")) as f32;
        order.push(match name {
            "temp_ext" => "temperature",
            "logit_bias" => "",
            other => other,
        });
        match name {
            "temp" => o.temp = x(1),
            "temp_ext" => (o.temp, o.dynatemp_range, o.dynatemp_exponent) = (x(1), x(2), x(3)),
            "top_k" => o.top_k = x(1) as i32,
            "top_p" => (o.top_p, o.min_keep) = (x(1), x(2) as usize),
            "min_p" => (o.min_p, o.min_keep) = (x(1), x(2) as usize),
            "typical" => (o.typical_p, o.min_keep) = (x(1), x(2) as usize),
            "top_n_sigma" => o.top_n_sigma = x(1),
            "xtc" => (o.xtc_probability, o.xtc_threshold, o.min_keep) = (x(1), x(2), x(3) as usize),
            "penalties" => {
                o.repeat_last_n = x(1) as i32;
                (o.repeat_penalty, o.frequency_penalty, o.presence_penalty) = (x(2), x(3), x(4));
            }
            "logit_bias" => {
                let pairs = step[1].as_array().expect("pairs").iter();
                // null stands for -Infinity, which JSON lacks.
                let bias = |v: &Value| v.as_f64().map_or(f32::NEG_INFINITY, |b| b as f32);
                o.logit_bias = pairs.map(|p| (p[0].as_u64().expect("an id") as u32, bias(&p[1]))).collect();
            }
            other => panic!("no sampler {other}"),
        }
    }
    o.samplers = order.join(";");
    o
}

/// `samplers.json`: logits, history and chain, with the probabilities llama.cpp gives, to 1e-5.
#[test]
fn reference_chains() {
    let text = include_str!("../../tests/data/samplers.json").replace("-Infinity", "null");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let mut passed = 0;
    for case in &cases {
        let chain = case["chain"].as_array().expect("a chain");
        let numbers = |key: &str| case[key].as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number"));
        let logits: Vec<f32> = numbers("logits").map(|x| x as f32).collect();
        let mut sampler = sampler(&options_of(chain), logits.len());
        let text: Vec<u32> = numbers("history").map(|t| t as u32).collect();
        let mut candidates = Candidates::new(&logits).unwrap();
        sampler.apply(&mut candidates, &text);
        let want = case["probs"].as_object().expect("probabilities");
        for id in 0..logits.len() as u32 {
            let (got, want) = (candidates.probability(id), want.get(&id.to_string()).and_then(Value::as_f64));
            // Absent from the reference: out of the running, not just improbable.
            let want = want.unwrap_or(0.0);
            assert!((got as f64 - want).abs() <= 1e-5 && (want > 0.0 || got < 1e-7), "{chain:?}: {id} {got} {want}");
        }
        passed += 1;
    }
    println!("sampler chains: {passed} of {}", cases.len());
    assert_eq!(passed, 58);
}

#[test]
fn the_default_chain() {
    let everything = SamplerOptions {
        logit_bias: vec![(1, 1.0)],
        repeat_penalty: 1.1,
        dry_multiplier: 0.8,
        top_n_sigma: 3.0,
        typical_p: 0.9,
        xtc_probability: 0.5,
        ..Default::default()
    };
    let info = VocabInfo { dry_breakers: &[vec![3]], ..info(10) };
    let chain = |o: &SamplerOptions| Sampler::new(o, &info).unwrap().chain();
    assert_eq!(
        chain(&everything),
        "logit_bias → penalties → dry → top_n_sigma → top_k → typ_p → top_p → min_p → xtc → temperature → draw"
    );
    assert_eq!(chain(&SamplerOptions::default()), "top_k → top_p → min_p → temperature → draw");
    assert_eq!(chain(&SamplerOptions { mirostat: 2, ..everything.clone() }), "logit_bias → temperature → mirostat_v2");
    let adaptive = SamplerOptions { adaptive_target: 0.3, samplers: "adaptive_p;min_p".into(), ..Default::default() };
    assert_eq!(chain(&adaptive), "min_p → adaptive_p");
}

#[test]
fn options_that_do_not_fit_the_model() {
    let bias = SamplerOptions { logit_bias: vec![(9, 1.0), (10, 1.0)], ..Default::default() };
    let e = Sampler::new(&bias, &info(10)).unwrap_err();
    assert!(e.to_string().contains("token 10, and the vocabulary has 10"), "{e}");
    let dry = SamplerOptions { dry_multiplier: 0.8, ..Default::default() };
    let e = Sampler::new(&dry, &info(10)).unwrap_err();
    assert!(e.to_string().contains("4 sequence breakers"), "{e}");
    Sampler::new(&SamplerOptions { dry_sequence_breakers: vec![], ..dry }, &info(10)).unwrap();
    let e = sampler(&nothing(), 10).sample(&[0.0; 9], &[]).unwrap_err();
    assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Usage, "9 logits for a vocabulary of 10"));
}

/// Tokens of a run of `n` from an empty text.
fn run(sampler: &mut Sampler, logits: &[f32], n: usize) -> Vec<u32> {
    let mut text = Vec::new();
    for _ in 0..n {
        let token = sampler.sample(logits, &text).unwrap();
        sampler.accept(token);
        text.push(token);
    }
    text
}

/// Written down: these tokens must come out on every platform and in every release.
#[test]
fn seeded_runs_give_the_golden_tokens() {
    let base = SamplerOptions { seed: Some(2026), ..Default::default() };
    let wide = SamplerOptions { top_k: 0, typical_p: 0.95, xtc_probability: 0.5, repeat_penalty: 1.2, ..base.clone() };
    let dynamic =
        SamplerOptions { dynatemp_range: 0.5, dry_multiplier: 0.8, dry_sequence_breakers: vec![], ..base.clone() };
    let cases = [
        (base.clone(), GOLDEN[0]),
        (wide, GOLDEN[1]),
        (dynamic, GOLDEN[2]),
        (SamplerOptions { mirostat: 1, ..base.clone() }, GOLDEN[3]),
        (SamplerOptions { mirostat: 2, ..base.clone() }, GOLDEN[4]),
        (SamplerOptions { adaptive_target: 0.1, ..base.clone() }, GOLDEN[5]),
        (SamplerOptions { temp: 0.0, frequency_penalty: 0.5, ..base }, GOLDEN[6]),
    ];
    let logits = some_logits(1000);
    for (options, golden) in cases {
        let mut s = sampler(&options, 1000);
        let chain = s.chain();
        assert_eq!(run(&mut s, &logits, 12), golden, "{chain}");
        s.reset();
        assert_eq!(run(&mut s, &logits, 12), golden, "{chain}, after a reset");
    }
}
const GOLDEN: [[u32; 12]; 7] = [
    [841, 938, 719, 835, 889, 421, 590, 940, 421, 189, 940, 531],
    [481, 995, 91, 750, 570, 421, 590, 622, 719, 307, 627, 104],
    [481, 619, 622, 333, 835, 719, 421, 189, 719, 841, 91, 512],
    [835, 253, 189, 287, 610, 940, 421, 91, 940, 841, 719, 487],
    [793, 524, 189, 229, 546, 940, 421, 91, 940, 841, 719, 487],
    [793, 570, 841, 125, 333, 91, 940, 622, 91, 307, 189, 889],
    [593, 593, 590, 421, 940, 719, 91, 593, 590, 189, 622, 421],
];

#[test]
fn without_a_seed_runs_differ_and_can_be_repeated() {
    let logits = some_logits(1000);
    let free = SamplerOptions { seed: None, ..Default::default() };
    let (mut a, mut b) = (sampler(&free, 1000), sampler(&free, 1000));
    let tokens = run(&mut a, &logits, 30);
    assert_ne!(tokens, run(&mut b, &logits, 30));
    let mut again = sampler(&SamplerOptions { seed: Some(a.seed()), ..free }, 1000);
    assert_eq!(tokens, run(&mut again, &logits, 30));
}

/// A draw made elsewhere takes its number: what follows is as if it had been made here.
#[test]
fn steps_taken_elsewhere_count() {
    let logits = some_logits(1000);
    let options = SamplerOptions { seed: Some(4), ..Default::default() };
    let whole = run(&mut sampler(&options, 1000), &logits, 6);
    let mut s = sampler(&options, 1000);
    assert_eq!((s.take_step(), s.take_step(), s.step()), (0, 1, 2));
    assert_eq!(run(&mut s, &logits, 4), whole[2..]);
}

#[test]
fn poisoned_logits_are_never_sampled() {
    let good = some_logits(300);
    let all = SamplerOptions { repeat_penalty: 1.1, typical_p: 0.9, seed: Some(1), ..Default::default() };
    for options in [SamplerOptions::greedy(), nothing(), all, SamplerOptions { mirostat: 1, ..nothing() }] {
        let mut s = sampler(&options, 300);
        let first = s.sample(&good, &[]).unwrap();
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::from_bits(0x7f80_0001)] {
            for place in [0, 150, 299] {
                let mut logits = good.clone();
                logits[place] = bad;
                let e = s.sample(&logits, &[]).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Numeric);
                assert!(e.to_string().contains(&format!("token {place} ")), "{e}");
            }
        }
        assert_eq!(s.sample(&[f32::NEG_INFINITY; 300], &[]).unwrap_err().kind(), ErrorKind::Numeric);
        // The failures took no random numbers and left nothing behind.
        assert_eq!(s.step(), 1);
        s.reset();
        assert_eq!(s.sample(&good, &[]).unwrap(), first);
    }
}

#[test]
fn banning_everything_is_an_error() {
    for mirostat in 0..=2 {
        for temp in [0.0, 0.7] {
            let logit_bias = (0..5).map(|id| (id, f32::NEG_INFINITY)).collect();
            let options = SamplerOptions { logit_bias, mirostat, temp, ..Default::default() };
            let e = sampler(&options, 5).sample(&[1.0; 5], &[]).unwrap_err();
            assert_eq!((e.kind(), e.to_string().contains("every token is banned")), (ErrorKind::Usage, true), "{e}");
        }
    }
}

/// Extreme but finite logits pass through every stage without a NaN.
#[test]
fn extreme_logits() {
    let logits = [f32::MAX, f32::MIN, 1e-45, -1e-45, 0.0, f32::MAX / 2.0, 1e30];
    let options = SamplerOptions {
        logit_bias: vec![(0, f32::MAX), (1, f32::MIN)],
        repeat_penalty: 1e-20,
        top_n_sigma: 3.0,
        typical_p: 0.99,
        xtc_probability: 1.0,
        temp: 1e-30,
        ..nothing()
    };
    let orders = [DEFAULT_ORDER, "temperature;typ_p;top_n_sigma;penalties;min_p;xtc;top_p"];
    for samplers in orders.map(String::from) {
        let mut s = sampler(&SamplerOptions { samplers, ..options.clone() }, 7);
        // Both end at the largest f32, and XTC may prefer the second of two top choices.
        assert!(matches!(s.sample(&logits, &[6]).unwrap(), 0 | 6));
        assert!(s.candidates().as_slice().iter().all(|c| c.p.is_finite() && !c.logit.is_nan()));
    }
}

/// Logits with many ties (quarters) and one in eight banned; at least one alive.
fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![7 => (-40i32..40).prop_map(|q| q as f32 / 4.0), 1 => Just(f32::NEG_INFINITY)];
    prop::collection::vec(logit, 2..400).prop_filter("one alive", |l| l.iter().any(|x| x.is_finite()))
}

/// Truncations alone, in the default order.
fn any_truncation() -> impl Strategy<Value = SamplerOptions> {
    (0..60i32, 0.0f32..=1.0, 0.0f32..=0.5, 0..8usize, any::<u64>()).prop_map(|(top_k, top_p, min_p, min_keep, seed)| {
        SamplerOptions { top_k, top_p, min_p, min_keep, seed: Some(seed), ..Default::default() }
    })
}

/// Everything on, in any order.
fn any_options() -> impl Strategy<Value = SamplerOptions> {
    let shape = (0.0f32..2.0, 0.0f32..1.0, 0.3f32..=1.0, 0.0f32..=1.0, 0.0f32..0.6, -1.0f32..4.0);
    let penalties = (0.5f32..2.0, -1.0f32..1.0, -1.0f32..1.0, 0.0f32..2.0);
    let last = (0..=2u8, -1.0f32..=1.0);
    let order = Just(DEFAULT_ORDER.split(';').collect::<Vec<_>>()).prop_shuffle();
    (any_truncation(), shape, penalties, last, order).prop_map(|(base, s, p, l, order)| SamplerOptions {
        temp: s.0,
        dynatemp_range: s.1,
        typical_p: s.2,
        xtc_probability: s.3,
        xtc_threshold: s.4,
        top_n_sigma: s.5,
        repeat_penalty: p.0,
        frequency_penalty: p.1,
        presence_penalty: p.2,
        dry_multiplier: p.3,
        dry_sequence_breakers: vec![],
        mirostat: l.0,
        adaptive_target: l.1,
        logit_bias: vec![(0, 1.5), (1, f32::NEG_INFINITY)],
        samplers: order.join(";"),
        ..base
    })
}

proptest! {
    #[test]
    fn any_chain_draws_a_token_that_is_alive(
        options in any_options(), logits in any_logits(), mut text in prop::collection::vec(0..6u32, 0..40),
    ) {
        let mut s = sampler(&options, logits.len());
        if logits.iter().enumerate().all(|(id, l)| id == 1 || !l.is_finite()) {
            // The bias bans the last one alive.
            prop_assert!(s.sample(&logits, &text).is_err());
            return Ok(());
        }
        for _ in 0..3 {
            let token = s.sample(&logits, &text).unwrap();
            prop_assert!(logits[token as usize].is_finite() && token != 1, "{} drew {token}", s.chain());
            prop_assert!(s.candidates().probability(token) > 0.0);
            let p = || s.candidates().as_slice().iter().map(|c| c.p);
            prop_assert!(p().all(|p| (0.0..=1.0).contains(&p)));
            prop_assert!((p().sum::<f32>() - 1.0).abs() < 1e-4, "{} sums to {}", s.chain(), p().sum::<f32>());
            s.accept(token);
            text.push(token);
        }
    }

    /// Which tokens stay does not depend on how ties were sorted: of equal logits the lower ids stay.
    #[test]
    fn of_equal_logits_the_lower_ids_stay(options in any_truncation(), logits in any_logits()) {
        let mut c = Candidates::new(&logits).unwrap();
        sampler(&options, logits.len()).apply(&mut c, &[]);
        let mut kept = vec![false; logits.len()];
        c.as_slice().iter().for_each(|c| kept[c.id as usize] = true);
        let dropped_before_kept = |(id, logit): (usize, &f32)| {
            kept[id] && (0..id).any(|lower| !kept[lower] && logits[lower] >= *logit)
        };
        prop_assert!(!logits.iter().enumerate().any(dropped_before_kept), "{kept:?}");
        let least = options.min_keep.min(logits.len()).min(if options.top_k > 0 { options.top_k as usize } else { usize::MAX });
        prop_assert!(c.len() >= least.max(1), "{} kept, at least {least} wanted", c.len());
    }

    /// Drawing, which may skip building the vocabulary, sees what applying the chain to all of it gives.
    #[test]
    fn drawing_and_applying_agree(options in any_truncation(), logits in any_logits()) {
        let mut s = sampler(&options, logits.len());
        let mut whole = Candidates::new(&logits).unwrap();
        s.apply(&mut whole, &[]);
        s.sample(&logits, &[]).unwrap();
        prop_assert_eq!(whole.as_slice(), s.candidates().as_slice());
    }
}
