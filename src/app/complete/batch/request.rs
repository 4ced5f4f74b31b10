//! A line of the requests, with OpenAI's names.

use crate::sample::SamplerOptions;
use crate::text::Message;
use serde::Deserialize;
use serde_json::Value as Json;

/// One line of the requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub custom_id: String,
    pub url: Url,
    pub body: Body,
    #[serde(default)]
    #[allow(dead_code, reason = "OpenAI's files have it; it is always POST")]
    method: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Url {
    #[serde(rename = "/v1/chat/completions")]
    Chat,
    #[serde(rename = "/v1/completions")]
    Completion,
}

/// A request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Body {
    pub messages: Option<Vec<Message>>,
    pub prompt: Option<String>,
    #[serde(alias = "max_completion_tokens")]
    pub max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    stop: Option<Stops>,
    /// Whatever it says: there is one model.
    pub model: Option<String>,
}

/// One stop string or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Several(Vec<String>),
}

impl Line {
    /// The request of a line; otherwise its `custom_id`, if that can be read, and what is wrong.
    pub fn read(line: &str) -> Result<Line, (Option<String>, serde_json::Error)> {
        serde_json::from_str(line).map_err(|e| {
            let id = serde_json::from_str::<Json>(line).ok().and_then(|v| Some(v["custom_id"].as_str()?.to_owned()));
            (id, e)
        })
    }
}

impl Body {
    /// Texts that end the answer.
    pub fn stops(&self) -> Vec<String> {
        match &self.stop {
            None => Vec::new(),
            Some(Stops::One(stop)) => vec![stop.clone()],
            Some(Stops::Several(stops)) => stops.clone(),
        }
    }

    /// How its tokens are drawn, `base` being what flags say.
    pub fn sampling(&self, base: &SamplerOptions) -> SamplerOptions {
        let mut options = base.clone();
        options.temp = self.temperature.unwrap_or(options.temp);
        options.top_p = self.top_p.unwrap_or(options.top_p);
        options.seed = self.seed.or(options.seed);
        options
    }
}
