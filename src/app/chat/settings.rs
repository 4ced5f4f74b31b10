//! `/set` and `/show settings`: the sampler's flags, by the names that the command line has for them.

use crate::app::sampling::SamplingArgs;
use crate::app::term;
use crate::base::{Error, Result};
use crate::sample::SamplerOptions;
use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches};

/// Options whose name is not their flag's.
const FLAGS: &[(&str, &str)] = &[
    ("temperature", "temp"),
    ("typical-p", "typical"),
    ("top-n-sigma", "top-nsigma"),
    ("dynatemp-exponent", "dynatemp-exp"),
    ("mirostat-tau", "mirostat-ent"),
    ("mirostat-eta", "mirostat-lr"),
    ("dry-sequence-breakers", "dry-sequence-breaker"),
];

fn flag(name: &str) -> &str {
    FLAGS.iter().find(|(option, _)| *option == name).map_or(name, |(_, flag)| flag)
}

/// `args` with one flag set to another value, as if it had stood on the command line.
pub fn set(args: &SamplingArgs, key: &str, value: &str) -> Result<SamplingArgs> {
    // Variables of the environment have had their say when the program began.
    let command = SamplingArgs::augment_args_for_update(Command::new("set").no_binary_name(true));
    let command = command.mut_args(|arg| arg.env(None::<&str>)).disable_help_flag(true);
    let names = || command.get_arguments().filter_map(|a| a.get_long()).collect::<Vec<_>>().join(", ");
    let matches = command.clone().try_get_matches_from([format!("--{}={value}", flag(key))]).map_err(|e| {
        if e.kind() == ErrorKind::UnknownArgument {
            let help = format!("there are system, think, {}", names());
            return Error::usage(format!("no setting is called {key}")).help(help);
        }
        let text = e.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string();
        Error::usage(first)
    })?;
    let mut args = args.clone();
    let updated = args.update_from_arg_matches(&matches);
    updated.map_err(|e| Error::usage(e.to_string()))?;
    args.options()?;
    Ok(args)
}

/// All settings with their values.
pub fn show(options: &SamplerOptions) -> String {
    let json = serde_json::to_value(options).expect("options are plain data");
    let rows = json.as_object().into_iter().flatten().filter(|(name, _)| *name != "samplers").map(|(name, value)| {
        // f32 as it was written, not as the f64 that JSON has.
        let value = value.as_f64().filter(|_| value.is_f64()).map_or(value.to_string(), |v| (v as f32).to_string());
        vec![flag(&name.replace('_', "-")).to_string(), value]
    });
    term::table(&rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_flags_names_and_checks() {
        let args = SamplingArgs { top_k: Some(7), ..SamplingArgs::default() };
        let args = set(&args, "temp", "0.25").unwrap();
        let args = set(&args, "presence-penalty", "-1.5").unwrap();
        let args = set(&args, "dry-sequence-breakers", "none").unwrap();
        assert_eq!((args.top_k, args.temp, args.presence_penalty), (Some(7), Some(0.25), Some(-1.5)));
        let says = |key: &str, value: &str| set(&args, key, value).unwrap_err().to_string();
        assert!(says("heat", "1").contains("heat") && says("heat", "1").contains("think, seed, temp, top-k"));
        assert!(says("temp", "hot").contains("a number"), "{}", says("temp", "hot"));
        assert!(says("top-p", "2").contains("between 0 and 1"));
    }

    #[test]
    fn every_setting_that_is_shown_can_be_set() {
        let options = SamplerOptions { seed: Some(1), ..SamplerOptions::default() };
        let text = show(&options);
        assert!(text.contains("temp") && text.contains("0.8\n"), "{text}");
        let command = SamplingArgs::augment_args(Command::new("set"));
        for line in text.lines() {
            let name = line.split_whitespace().next().unwrap();
            assert!(command.get_arguments().any(|a| a.get_long() == Some(name)), "{name}");
        }
    }
}
