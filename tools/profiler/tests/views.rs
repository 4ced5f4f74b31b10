//! The views without a window: what they show is what the profile says, and keys and mouse do what they should.

use eframe::egui::{self, Key, Modifiers, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use wgpu_llm::low_level::plan::MemoryUse;
use wgpu_llm::low_level::plan::roofline::Roofline;
use wgpu_llm::low_level::profile::statistics::{Group, Phase, tokens, totals};
use wgpu_llm::low_level::profile::{DeviceFacts, Event, Facts, KernelFacts, LayerFacts, Record, Run};
use wgpu_llm::low_level::profile::{Observer, Profile, chrome};
use wgpu_llm_profiler::{Feed, View, Viewer, open};

const OPS: [(&str, &str); 3] = [("linear", "attn_q"), ("attention", "attention"), ("linear", "ffn_down")];

/// Records of a prompt of eight tokens and of nine tokens, `slower` times as slow as they could be.
fn records(slower: u64) -> Vec<Record> {
    let device = |kind: &str, name: &str| DeviceFacts {
        kind: kind.into(),
        name: name.into(),
        driver: "test".into(),
        roofline: Some(Roofline { read: 50e9, f32: 400e9, ..Roofline::default() }),
        timing: String::new(),
    };
    let layer = |layer| LayerFacts { layer, device: 1, weights: 1 << 20 };
    let facts = Facts {
        architecture: "llama".into(),
        weights: 3 << 20,
        context: 64,
        kv: "f16".into(),
        devices: vec![device("CPU", "a processor"), device("GPU", "a card")],
        placement: vec![layer(Some(0)), layer(Some(1)), layer(None)],
    };
    let kernel = |i: usize, tokens| KernelFacts {
        device: 1,
        op: OPS[i % 3].0.into(),
        variant: "vec".into(),
        shader: "linear_vec".into(),
        label: OPS[i % 3].1.into(),
        layer: Some(i as u32 / 3),
        tokens,
        src: vec!["q4_1 [64, 64]".into()],
        dst: "f32 [1, 64]".into(),
        factor: "q4_1".into(),
        weights: 2560.0,
    };
    let kernels = (0..6).map(|i| kernel(i, 8)).chain((0..6).map(|i| kernel(i, 1))).collect();
    let run = |run: u32| {
        let (tokens, past) = if run == 0 { (8, 0) } else { (1, 7 + run as usize) };
        let start = u64::from(run) * 1_000_000 * slower;
        let event = |i: u32| Event {
            kernel: if run == 0 { i } else { 6 + i },
            run,
            start: start + 50_000 + u64::from(i) * 140_000 * slower,
            length: (40_000 + 20_000 * u64::from(i)) * slower,
            bytes: 30_000.0,
            flops: 100_000.0,
        };
        let end = start + 990_000 * slower;
        let memory = vec![MemoryUse { device: 1, weights: 3 << 20, cache: 1 << 20, other: 4096 }];
        let memory = if run == 0 { memory } else { Vec::new() };
        let (gpu, submit, wait, readback) = (840_000 * slower, 60_000, 700_000, 2_000);
        Record::Run(
            Run { run, tokens, past, start, end, gpu, cpu: 0, submit, wait, readback, memory },
            (0..6).map(event).collect(),
        )
    };
    [Record::Facts(facts), Record::Kernels(kernels)].into_iter().chain((0..10).map(run)).collect()
}

fn profile(slower: u64) -> Profile {
    let mut profile = Profile::default();
    records(slower).iter().for_each(|r| profile.observe(r));
    profile
}

fn harness(viewer: Viewer) -> Harness<'static, Viewer> {
    let show = |ui: &mut egui::Ui, viewer: &mut Viewer| viewer.ui(ui);
    let mut harness = Harness::builder().with_size(vec2(1100.0, 700.0)).build_ui_state(show, viewer);
    harness.run_steps(4);
    harness
}

/// The texts that stand on the screen.
fn texts(harness: &Harness<Viewer>) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for shape in &harness.output().shapes {
        collect(&shape.shape, &mut texts);
    }
    texts
}

fn collect(shape: &egui::Shape, texts: &mut Vec<String>) {
    match shape {
        egui::Shape::Text(text) => texts.push(text.galley.text().to_owned()),
        egui::Shape::Vec(shapes) => shapes.iter().for_each(|s| collect(s, texts)),
        _ => {}
    }
}

fn shows(harness: &Harness<Viewer>, text: &str) {
    let texts = texts(harness);
    assert!(texts.iter().any(|t| t.contains(text)), "{text:?} is not among {texts:?}");
}

/// As the window writes times.
fn ms(ns: f64) -> String {
    let (value, unit) = if ns < 1e6 { (ns / 1e3, "µs") } else { (ns / 1e6, "ms") };
    if value >= 100.0 {
        format!("{value:.0} {unit}")
    } else if value >= 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.2} {unit}")
    }
}

#[test]
fn a_device_without_a_clock_is_told_in_every_view() {
    let mut profile = profile(1);
    profile.facts.devices[1].timing = "whole submissions, by the host's clock".into();
    profile.kernels.iter_mut().for_each(|k| {
        let tokens = k.tokens;
        *k = KernelFacts {
            device: 1,
            op: "submission".into(),
            variant: "whole".into(),
            tokens,
            ..KernelFacts::default()
        };
    });
    for view in View::ALL {
        let mut viewer = Viewer::new(profile.clone());
        viewer.show(view);
        let harness = harness(viewer);
        shows(&harness, "a card has no clock of its own; its times are of whole submissions, by the host's clock.");
    }
}

#[test]
fn the_table_shows_the_profiles_numbers() {
    let profile = profile(1);
    let mut harness = harness(Viewer::new(profile.clone()));
    let all = totals(&profile, Group::Kernel, Phase::All);
    for total in &all {
        shows(&harness, &total.name);
        shows(&harness, &ms(total.total as f64));
        shows(&harness, &ms(total.mean()));
        shows(&harness, &ms(total.p95 as f64));
        shows(&harness, &format!("{:.0} MB/s", total.rate() / 1e6));
    }
    let speed = tokens(&profile, Phase::Answer).rate();
    shows(&harness, &format!("{speed:.0} t/s"));
    // A click anywhere in a row tells what is known of its kernel.
    let name = harness.get_by_label(&all[0].name).rect();
    let cell = egui::pos2(name.right() + 150.0, name.center().y);
    harness.hover_at(cell);
    harness.run_steps(2);
    harness.drag_at(cell);
    harness.run_steps(2);
    harness.drop_at(cell);
    harness.run_steps(3);
    shows(&harness, "shaders/linear_vec.wgsl");
}

#[test]
fn the_slowest_kernel_stands_first_until_another_column_is_chosen() {
    let first = |harness: &Harness<Viewer>| {
        let of = |t: &String| t.contains("/vec ");
        texts(harness).into_iter().find(of).expect("a kernel")
    };
    let profile = profile(1);
    let mut harness = harness(Viewer::new(profile.clone()));
    let slowest = totals(&profile, Group::Kernel, Phase::All)[0].name.clone();
    assert_eq!(first(&harness), slowest);
    harness.get_by_label("Kernel").click();
    harness.run_steps(3);
    assert_eq!(first(&harness), "attention/vec attention");
    harness.get_by_label("By layer").click();
    harness.run_steps(3);
    shows(&harness, "Layer");
    // The arrow chooses a row, and what is known of it stands below.
    harness.key_press(Key::ArrowDown);
    harness.run_steps(3);
    shows(&harness, "shaders/linear_vec.wgsl");
    shows(&harness, "q4_1 [64, 64] gives f32 [1, 64]");
}

#[test]
fn keys_lead_to_every_view() {
    let mut harness = harness(Viewer::new(profile(1)).compare(profile(2)));
    assert_eq!(harness.state().view(), View::Diff);
    let keys = [Key::Num1, Key::Num2, Key::Num3, Key::Num4, Key::Num5, Key::Num6];
    for (view, key) in View::ALL.into_iter().zip(keys) {
        harness.key_press(key);
        harness.run_steps(3);
        assert_eq!(harness.state().view(), view);
    }
    for view in View::ALL.into_iter().rev() {
        harness.get_by_label(view.name()).click();
        harness.run_steps(3);
        assert_eq!(harness.state().view(), view);
    }
}

#[test]
fn the_timeline_zooms_moves_and_goes_from_token_to_token() {
    let mut viewer = Viewer::new(profile(1));
    viewer.show(View::Timeline);
    let mut harness = harness(viewer);
    shows(&harness, "token at position 16");
    shows(&harness, "GPU 840 µs");
    for text in ["layer 0", "layer 1", "linear ffn_down", "wait"] {
        shows(&harness, text);
    }
    let span = |h: &Harness<Viewer>| h.state().timeline_span().expect("something is shown");
    let whole = span(&harness);
    harness.key_press(Key::Plus);
    harness.run_steps(3);
    let zoomed = span(&harness);
    assert!(((zoomed.1 - zoomed.0) / (whole.1 - whole.0) - 0.5).abs() < 0.01, "{whole:?} {zoomed:?}");
    harness.key_press(Key::D);
    harness.run_steps(3);
    let moved = span(&harness);
    assert!(moved.0 > zoomed.0 && moved.1 > zoomed.1, "{zoomed:?} {moved:?}");
    // The wheel zooms around the pointer.
    harness.hover_at(egui::pos2(550.0, 200.0));
    harness.event(egui::Event::MouseWheel {
        unit: egui::MouseWheelUnit::Point,
        delta: vec2(0.0, 200.0),
        phase: egui::TouchPhase::Move,
        source: egui::MouseWheelSource::Wheel,
        modifiers: Modifiers::NONE,
    });
    harness.run_steps(30);
    let wheeled = span(&harness);
    assert!(wheeled.1 - wheeled.0 < 0.9 * (moved.1 - moved.0), "{moved:?} {wheeled:?}");
    // And dragging moves.
    harness.drag_at(egui::pos2(600.0, 200.0));
    harness.run_steps(2);
    harness.hover_at(egui::pos2(500.0, 200.0));
    harness.run_steps(2);
    harness.drop_at(egui::pos2(500.0, 200.0));
    harness.run_steps(2);
    assert!(span(&harness).0 > wheeled.0, "{wheeled:?} {:?}", span(&harness));
    harness.key_press(Key::ArrowLeft);
    harness.run_steps(3);
    shows(&harness, "token at position 15");
}

#[test]
fn tokens_memory_roofline_and_diff_show_the_profiles_numbers() {
    let (now, before) = (profile(1), profile(2));
    let mut harness = harness(Viewer::new(now.clone()).compare(before));
    let ffn = totals(&now, Group::Kernel, Phase::All)[0].total as f64 / 17.0;
    shows(&harness, &ms(ffn));
    shows(&harness, &ms(2.0 * ffn));
    shows(&harness, "0.50 ×");
    harness.key_press(Key::Num4);
    harness.run_steps(3);
    let answer = tokens(&now, Phase::Answer);
    for ns in [answer.mean, answer.gpu, answer.submit, answer.wait, answer.readback] {
        shows(&harness, &ms(ns));
    }
    harness.key_press(Key::Num5);
    harness.run_steps(3);
    for text in
        ["GPU (a card): 4.00 MiB", "weights 3.00 MiB", "cache 1.00 MiB", "GPU: 2 layers, 3.00 MiB of weights", "in/out"]
    {
        shows(&harness, text);
    }
    harness.key_press(Key::Num3);
    harness.run_steps(3);
    shows(&harness, "reads 50.0 GB/s, multiplies 400 GFLOP/s in f32");
    shows(&harness, "roof: f32");
}

#[test]
fn records_on_a_pipe_are_shown_while_they_come() {
    let lines: String = records(1).iter().map(|r| serde_json::to_string(r).expect("plain data") + "\n").collect();
    let feed = Feed::lines(std::io::Cursor::new(lines + "no record\n"));
    let mut harness = harness(Viewer::live(feed));
    for _ in 0..200 {
        if harness.state().profile().runs.len() == 10 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        harness.run_steps(1);
    }
    harness.run_steps(3);
    assert_eq!(*harness.state().profile(), profile(1));
    shows(&harness, "complete: llama");
}

#[test]
fn what_came_last_is_shown_although_nothing_follows() {
    let (sender, feed) = Feed::channel();
    let mut all = records(1).into_iter();
    all.by_ref().take(6).for_each(|r| sender.send(r).expect("the feed is there"));
    let mut harness = harness(Viewer::live(feed));
    let slowest = |profile: &Profile| ms(totals(profile, Group::Kernel, Phase::All)[0].total as f64);
    let before = slowest(harness.state().profile());
    shows(&harness, &before);
    // At once, so that it is too early for the totals.
    all.for_each(|r| sender.send(r).expect("the feed is there"));
    harness.run_steps(1);
    assert_eq!(*harness.state().profile(), profile(1));
    let repaint = harness.output().viewport_output[&egui::ViewportId::ROOT].repaint_delay;
    assert!(repaint <= std::time::Duration::from_millis(500), "{repaint:?}");
    std::thread::sleep(std::time::Duration::from_millis(600));
    harness.run_steps(1);
    assert_ne!(slowest(&profile(1)), before);
    shows(&harness, &slowest(&profile(1)));
    drop(sender);
}

#[test]
fn another_trace_to_compare_with_and_another_phase_are_worked_out() {
    let (now, before) = (profile(1), profile(2));
    let per_token = |profile: &Profile, phase| {
        let total = totals(profile, Group::Kernel, phase)[0].total as f64;
        ms(total / tokens(profile, phase).tokens as f64)
    };
    let mut harness = harness(Viewer::new(now.clone()).compare(before.clone()));
    shows(&harness, &per_token(&before, Phase::All));
    harness.get_by_label("Answer").click();
    harness.run_steps(3);
    shows(&harness, &per_token(&before, Phase::Answer));
    let viewer = std::mem::replace(harness.state_mut(), Viewer::new(Profile::default()));
    *harness.state_mut() = viewer.compare(now.clone());
    harness.run_steps(2);
    shows(&harness, "1.00 ×");
}

#[test]
fn a_saved_trace_is_opened_and_other_files_are_refused_in_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("trace.json");
    let file = std::fs::File::create(&path).expect("a file");
    chrome::write(&profile(1), std::io::BufWriter::new(file)).expect("written");
    assert_eq!(open(&path).expect("a trace"), profile(1));
    std::fs::write(&path, "{}").expect("written");
    assert!(open(&path).unwrap_err().to_string().contains("no trace of wgpu-llm"));
    std::fs::write(&path, "no JSON").expect("written");
    assert!(open(&path).unwrap_err().to_string().contains("no JSON"));
}

#[test]
fn an_empty_profile_and_a_tiny_window_are_no_trouble() {
    for (profile, size) in [(Profile::default(), vec2(1100.0, 700.0)), (profile(1), vec2(120.0, 60.0))] {
        let mut viewer = Viewer::new(profile);
        viewer.show(View::Kernels);
        let show = |ui: &mut egui::Ui, viewer: &mut Viewer| viewer.ui(ui);
        let mut harness = Harness::builder().with_size(size).build_ui_state(show, viewer);
        for view in View::ALL {
            harness.state_mut().show(view);
            harness.run_steps(2);
        }
    }
}
