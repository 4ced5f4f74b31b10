//! A session's cache in a file: what was computed once need not be computed again by the next run. The file holds tokens, keys and values,
//! and the conversation that they are of; CPU, GPU and both together write and read the same.

mod cells;
mod header;

use super::Session;
use super::books::cache_pages;
use crate::base::{Checksum, Error, Result, replace_private};
use crate::model::Model;
use crate::ops::CacheTypes;
use crate::state::PAGE_CELLS;
use crate::text::Message;
use header::{Header, MAGIC, SUM, State, damaged, fill};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file with a session's cache, of which the header was read.
pub struct SavedCache {
    path: PathBuf,
    header: Header,
    file: BufReader<File>,
}

impl SavedCache {
    /// Opens the file at `path`; `None` if there is none.
    ///
    /// # Errors
    /// `Usage` if it is something else than a saved cache, or could not be written for want of its folder; `Unsupported` if another version of
    /// this program has written it; `Format` if it is damaged, or shorter than it should be; `Io`.
    pub fn open(path: &Path) -> Result<Option<SavedCache>> {
        Self::read(path).map_err(|e| e.at(path.display()))
    }

    fn read(path: &Path) -> Result<Option<SavedCache>> {
        let Some(file) = open_own(path)? else { return Ok(None) };
        let size = file.metadata().map_err(cannot_read)?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        file.rewind().map_err(cannot_read)?;
        let header = Header::read(&mut file, size)?;
        Ok(Some(SavedCache { path: path.to_owned(), header, file }))
    }

    /// Whether the file at `path` is a saved cache, by its first bytes.
    pub fn is_at(path: &Path) -> bool {
        matches!(open_own(path), Ok(Some(_)))
    }

    /// The tokens whose keys and values it has.
    pub fn tokens(&self) -> &[u32] {
        &self.header.tokens
    }

    /// The conversation that these are of, if it is one.
    pub fn messages(&self) -> &[Message] {
        &self.header.messages
    }

    /// An error unless its cells are of `model` and of these types.
    ///
    /// # Errors
    /// `Usage`, naming what it has and what is wanted.
    pub fn check(&self, model: &Model, types: CacheTypes) -> Result<()> {
        let (its, own) = (&self.header.model, model.identity()?);
        if *its != own {
            let what = format!("the saved cache is of the model {its}, and this is {own}");
            return Err(Error::usage(what).at(self.path.display()).help("name another file, or the same model"));
        }
        let [keys, values] = &self.header.types;
        if [types.keys.name(), types.values.name()] != [keys, values] {
            let what = format!("the saved cache has keys of {keys} and values of {values}, and these are {types}");
            let help = format!("use --cache-type-k {keys} --cache-type-v {values}, or name another file");
            return Err(Error::usage(what).at(self.path.display()).help(help));
        }
        Ok(())
    }
}

fn cannot_read(e: std::io::Error) -> Error {
    Error::io("can't read the saved cache", e)
}

/// The file at `path` if it is a saved cache; `None` if there is none. An error if it is something else, or cannot be written.
fn open_own(path: &Path) -> Result<Option<File>> {
    let foreign = |what: &str| {
        let help = "name another file: this one is not written over";
        Error::usage(format!("{what} is no saved cache of wgpu-llm")).help(help)
    };
    // What is no plain file might be waited for without end.
    match std::fs::metadata(path) {
        Ok(known) if known.is_file() => {}
        Ok(_) => return Err(foreign("what lies there")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let missing = folder.filter(|folder| !folder.is_dir()).map(|folder| folder.display().to_string());
            let no_folder = |folder| Error::usage(format!("there is no folder {folder}")).help("make it first");
            return missing.map_or(Ok(None), |folder| Err(no_folder(folder)));
        }
        Err(e) => return Err(cannot_read(e)),
    }
    let mut file = File::open(path).map_err(cannot_read)?;
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == MAGIC => Ok(Some(file)),
        Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(cannot_read(e)),
        _ => Err(foreign("the file")),
    }
}

/// Where the cells of a sequence lie: of each of its states, by group, the pages of caches that it adds to the states before.
type Pages = Vec<Vec<Vec<u32>>>;

impl Session {
    /// Writes the tokens of the session with their keys and values into a file at `path`, and `messages`, the conversation that they are of.
    /// The bytes that this takes go to `begin` before. The file is there when it is whole: if anything fails, one that was there before
    /// stays as it was. On Unix only its owner may read it. What layers with a window need to go back to the beginnings of answers is saved too,
    /// as far as it is there. Not in browsers: it waits for the GPU.
    ///
    /// # Errors
    /// `Usage` if there is a file that is no saved cache, or no folder for it, or if the session has no tokens; `Io` if the file that is there
    /// cannot be read or the new one not be written, as when the disk is full; a device that failed for good.
    pub fn save_cache(&mut self, path: &Path, messages: &[Message], begin: &mut dyn FnMut(u64)) -> Result<()> {
        self.save(path, messages, begin).map_err(|e| e.at(path.display()))
    }

    fn save(&mut self, path: &Path, messages: &[Message], begin: &mut dyn FnMut(u64)) -> Result<()> {
        open_own(path)?;
        if self.cached_tokens().is_empty() {
            return Err(Error::usage("nothing has been computed that could be saved"));
        }
        let mut begin = Some(begin);
        loop {
            let header = self.header(messages)?;
            if let Some(begin) = begin.take() {
                begin(header.file_bytes());
            }
            let failed = |e| Error::io("can't save the cache", e).help("check the folder and the room on the disk");
            let write = |out: &mut dyn Write| pollster::block_on(self.write_cache(&header, out, &failed));
            match replace_private(path, failed, write) {
                // What it held is computed anew.
                Err(e) if self.engine.can_do_without(&e) => pollster::block_on(self.recover(e))?,
                done => return done,
            }
        }
    }

    async fn write_cache(
        &mut self,
        header: &Header,
        out: &mut dyn Write,
        failed: &dyn Fn(std::io::Error) -> Error,
    ) -> Result<()> {
        header.write(out).map_err(failed)?;
        let pages = self.pages_of_states(header);
        let mut sum = Checksum::default();
        for layer in self.engine.layer_caches() {
            for (state, pages) in header.states.iter().zip(&pages) {
                let pages = &pages[layer.group];
                // Cells behind the state's last hold what was computed for nothing, or taken back.
                let cell = layer.page_bytes() / PAGE_CELLS;
                let mut at = (state.tokens.div_ceil(PAGE_CELLS) - pages.len()) * layer.page_bytes();
                let mut take = |bytes: &[u8]| {
                    let known = (state.tokens * cell).saturating_sub(at).min(bytes.len());
                    at += bytes.len();
                    let zeros = vec![0; bytes.len() - known];
                    for part in [&bytes[..known], &zeros] {
                        sum.add(part);
                        out.write_all(part).map_err(failed)?;
                    }
                    Ok(())
                };
                self.engine.read_pages(&layer, pages, &mut take).await?;
            }
        }
        out.write_all(&sum.value().to_le_bytes()).map_err(failed)
    }

    /// What the file of this session says of itself.
    fn header(&self, messages: &[Message]) -> Result<Header> {
        let options = &self.engine.options;
        let states = self.books.points().into_iter().map(|point| State { tokens: point.len, gone: point.gone });
        let mut header = Header {
            model: self.model.identity()?,
            types: [options.kv.keys, options.kv.values].map(|dtype| dtype.name().to_owned()),
            context: options.context,
            rotation: self.engine.rotation(),
            groups: self.engine.cells.groups(),
            bytes: 0,
            tokens: self.books.tokens().to_vec(),
            states: states.collect(),
            messages: messages.to_vec(),
        };
        header.bytes = self.cell_bytes(&header);
        Ok(header)
    }

    /// Bytes of all cells of a file with this header.
    fn cell_bytes(&self, header: &Header) -> u64 {
        let caches = self.engine.layer_caches();
        let pages = |group: usize| header.pages(group).map(|pages| pages.len() as u64).sum::<u64>();
        caches.iter().map(|layer| layer.page_bytes() as u64 * pages(layer.group)).sum()
    }

    /// The pages of caches in which the cells of the header's states lie now.
    fn pages_of_states(&self, header: &Header) -> Pages {
        let points = self.books.points();
        let of_state = |i: usize| {
            let of_group = |(group, table): (usize, &&[u32])| {
                let pages = header.pages(group).nth(i).expect("each state has pages");
                cache_pages(&table[pages]).collect()
            };
            points[i].tables.iter().enumerate().map(of_group).collect()
        };
        (0..points.len()).map(of_state).collect()
    }

    /// Takes the place of all tokens of this session by those of a file, so that a prompt that begins with them has only the rest of it
    /// computed: the same tokens and logits follow as in the session that was saved, on the same device.
    ///
    /// # Errors
    /// `Usage` if it is of another model, has other types, other groups of layers or another context, or more tokens than the context: then the
    /// session is as it was. `Format` if the file is damaged, and what reading fails with: then the session may have no tokens.
    pub fn load_cache(&mut self, mut saved: SavedCache) -> Result<()> {
        saved.check(&self.model, self.engine.options.kv)?;
        let at = saved.path.display().to_string();
        self.check_saved(&saved.header).map_err(|e| e.at(&at))?;
        loop {
            self.books.reset();
            let read = pollster::block_on(self.read_cache(&mut saved));
            let Err(e) = read else { return Ok(()) };
            self.books.reset();
            if !self.engine.can_do_without(&e) {
                return Err(e.at(at));
            }
            pollster::block_on(self.recover(e))?;
        }
    }

    fn check_saved(&self, header: &Header) -> Result<()> {
        let (context, tokens) = (self.context(), header.tokens.len());
        let other = |what: String, help: String| Err(Error::usage(what).help(help + ", or name another file"));
        if header.groups != self.engine.cells.groups() {
            let what = "layers with a window have other cells in the saved cache than here";
            let help = format!("use the --swa-full, -c {} and -ub that it was made with", header.context);
            return other(what.into(), help);
        }
        if header.rotation != self.engine.rotation() {
            let what = format!(
                "the saved cache is of a context of {} tokens, this of {context}: the model computes them differently",
                header.context
            );
            return other(what, format!("use -c {}", header.context));
        }
        if tokens > context {
            let what = format!("the saved cache has {tokens} tokens, and the context {context}");
            return other(what, format!("use a larger context (-c {})", header.context.max(tokens)));
        }
        let vocab = self.model.spec().vocab;
        if let Some(token) = header.tokens.iter().find(|token| **token as usize >= vocab) {
            return Err(damaged(format!("token {token} is outside the vocabulary of {vocab}")));
        }
        header.check_states(&self.books.windows())?;
        match self.cell_bytes(header) {
            want if want == header.bytes => Ok(()),
            want => Err(damaged(format!("it has {} bytes of cells and should have {want}", header.bytes))),
        }
    }

    async fn read_cache(&mut self, SavedCache { header, file, .. }: &mut SavedCache) -> Result<()> {
        file.seek(SeekFrom::End(-((header.bytes + SUM) as i64))).map_err(cannot_read)?;
        let (mut before, mut pages) = (0, Pages::new());
        for state in &header.states {
            self.books.resume(&header.tokens[before..state.tokens], &state.gone)?;
            // The end is none: it is where the session stands.
            if state.tokens < header.tokens.len() {
                self.books.anchor();
            }
            let added = |group: usize| header.pages(group).nth(pages.len()).expect("each state has pages");
            let of_group = |group: usize| cache_pages(&self.books.table(group)[added(group)]).collect();
            let of_state = (0..header.groups).map(of_group).collect();
            (before, _) = (state.tokens, pages.push(of_state));
        }
        let mut sum = Checksum::default();
        for layer in self.engine.layer_caches() {
            // An anchor that had to go leaves its pages to those after it, which are written later.
            for pages in &pages {
                let mut read = |bytes: &mut [u8]| {
                    fill(file, bytes)?;
                    sum.add(bytes);
                    Ok(())
                };
                self.engine.write_pages(&layer, &pages[layer.group], &mut read).await?;
            }
        }
        let mut want = [0; SUM as usize];
        fill(file, &mut want)?;
        match sum.value() == u64::from_le_bytes(want) {
            true => Ok(()),
            false => Err(damaged("its cells have another checksum")),
        }
    }
}
