//! Many requests at once, each line of them a prompt: `cargo run --release --example many -- model.gguf "Once upon" "The sky is"`

use wgpu_llm::{Event, Loader, SamplerOptions};

fn main() -> wgpu_llm::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "model.gguf".into());
    let service = Loader::new(path).context(512).serve(8)?;
    let sampling = SamplerOptions { seed: Some(1), ..SamplerOptions::default() };
    let prompts: Vec<String> = args.collect();
    let handles: Vec<_> = prompts.iter().map(|text| service.complete(text, 16, &sampling)).collect::<Result<_, _>>()?;
    for (prompt, handle) in prompts.iter().zip(handles) {
        print!("{prompt}");
        for event in handle {
            match event {
                Event::Token { text, .. } => print!("{text}"),
                Event::Done { text, usage, .. } => println!("{text}\n({} tokens)", usage.tokens),
                Event::Failed { error } => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
