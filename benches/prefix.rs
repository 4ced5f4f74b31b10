//! How much sooner a prompt begins to be answered when all but its end has been computed for another request:
//! `cargo bench --bench prefix -- model.gguf [cached tokens] [new tokens] [rounds]`.

use wgpu_llm::{Event, Loader, Request, Result};

fn main() -> Result<()> {
    // cargo adds a flag of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let Some(path) = words.first() else {
        println!("prefix: give a model, as in `cargo bench --bench prefix -- model.gguf 4000 20 9`");
        return Ok(());
    };
    let number = |i: usize, usual: usize| words.get(i).and_then(|word| word.parse().ok()).unwrap_or(usual);
    let (cached, new, rounds) = (number(1, 4000), number(2, 20), number(3, 9));
    let service = Loader::new(path).device(wgpu_llm::DeviceChoice::Cpu).context(cached + new + 64).serve(1)?;
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // A prefix that no round before had; the same one twice, with two ends.
        let token = |i: usize| 1000 + ((i * 7919 + round * 104_729) % 20_000) as u32;
        for (end, times) in times.iter_mut().enumerate() {
            let mut prompt: Vec<u32> = (0..cached).map(token).collect();
            prompt.extend((0..new).map(|i| 30_000 + (100 * end + i) as u32));
            for event in service.submit(Request::new(prompt, 1))? {
                match event {
                    Event::Done { usage, times: took, .. } => {
                        let found = usage.cached_tokens;
                        assert_eq!(found >= cached / 64 * 64, end == 1, "{found} tokens were found of {cached}");
                        times.push((took.queued + took.prompt).as_secs_f64());
                    }
                    Event::Failed { error } => return Err(error),
                    _ => {}
                }
            }
        }
    }
    let [cold, warm] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!("{cached} + {new} tokens until the first of the answer, medians of {rounds}:");
    println!("cold {:.1} ms, with {cached} cached {:.1} ms: {:.1} times sooner", 1e3 * cold, 1e3 * warm, cold / warm);
    Ok(())
}
