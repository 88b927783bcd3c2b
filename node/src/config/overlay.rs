//! Where configuration comes from: a file, then variables, then arguments; the later wins.
//!
//! `PSPD_LISTEN__HTTP=...` and `--set listen.http=...` both mean the key `http` in `[listen]`. A value is TOML if it
//! can be read as such, else a plain text, so quotes are seldom needed.

use std::path::PathBuf;

use toml::{Table, Value};

use crate::exit::{Exit, OrProblem as _, Problem};

/// What every variable's name begins with.
const PREFIX: &str = "PSPD_";

/// The sources of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Variables of the environment; those without the prefix `PSPD_` are ignored.
    pub variables: Vec<(String, String)>,
    /// `key=value` arguments.
    pub settings: Vec<String>,
}

impl Source {
    /// The file, this process's environment, and these settings.
    #[must_use]
    pub fn of_process(file: PathBuf, settings: Vec<String>) -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self {
            file,
            variables,
            settings,
        }
    }

    /// All sources in one table.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML, or a setting is not `key=value`.
    pub fn table(&self) -> Result<Table, Problem> {
        let name = || self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file).or_problem(Exit::Config, || {
            format!("cannot read configuration {}", name())
        })?;
        let mut table: Table = toml::from_str(&text).or_problem(Exit::Config, || {
            format!("configuration {} is not TOML", name())
        })?;
        for (variable, value) in &self.variables {
            let Some(key) = variable.strip_prefix(PREFIX) else {
                continue;
            };
            let path = key.to_ascii_lowercase();
            set(&mut table, path.split("__"), value).map_err(|at| not_a_table(variable, &at))?;
        }
        for setting in &self.settings {
            let (key, value) = setting.split_once('=').ok_or_else(|| {
                Problem::new(Exit::Usage, format!("`--set {setting}` is not key=value"))
            })?;
            set(&mut table, key.trim().split('.'), value).map_err(|at| not_a_table(key, &at))?;
        }
        Ok(table)
    }
}

fn not_a_table(whole: &str, at: &str) -> Problem {
    Problem::new(
        Exit::Config,
        format!("`{whole}`: `{at}` is not a section of the configuration"),
    )
}

/// Sets one key; the error is the part of its path that is not a table.
fn set<'a>(
    mut table: &mut Table,
    mut path: impl Iterator<Item = &'a str>,
    value: &str,
) -> Result<(), String> {
    let mut key = path.next().unwrap_or_default().to_owned();
    for next in path {
        table = table
            .entry(key.clone())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or(key)?;
        key = String::from(next);
    }
    table.insert(key, value_of(value));
    Ok(())
}

fn value_of(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}
