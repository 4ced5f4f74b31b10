//! In someone's async program, whatever its runtime: `cargo run --release --example embed_async -- model.gguf "Once upon a time"`

use wgpu_llm::{Event, Handle, Loader, SamplerOptions};

/// The whole answer; other tasks go on meanwhile.
async fn answer(mut handle: Handle) -> wgpu_llm::Result<String> {
    let mut answer = String::new();
    while let Some(event) = handle.next_event().await {
        match event {
            Event::Token { text, .. } | Event::Done { text, .. } => answer += &text,
            Event::Failed { error } => return Err(error),
            _ => {}
        }
    }
    Ok(answer)
}

fn main() -> wgpu_llm::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "model.gguf".into());
    let text = args.next().unwrap_or_else(|| "Once upon a time".into());
    let service = Loader::new(path).context(512).serve(4)?;
    let handle = service.complete(&text, 16, &SamplerOptions { seed: Some(1), ..SamplerOptions::default() })?;
    // Any executor will do.
    println!("{text}{}", pollster::block_on(answer(handle))?);
    Ok(())
}
