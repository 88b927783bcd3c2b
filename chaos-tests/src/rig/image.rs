//! A node's disk: an ext4 file system in a sparse file, mounted over a loop device.
//!
//! The file system is as users have it, with its journal. A [power cut](Image::power_cut) shuts it down without writing
//! the log or anything else that was not synced, and mounts what is left, as a machine does that comes back. The node's process must be gone
//! before: a living writer could take a call for done that was not. What is in the loop device's own cache counts as on the disk.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{run, text, until};

/// The file that takes the room on a disk.
const BALLAST: &str = "ballast";

/// A loop-mounted disk. It is unmounted and removed when it is dropped.
#[derive(Debug)]
pub struct Image {
    file: PathBuf,
    mount: PathBuf,
}

impl Image {
    /// Makes a new disk of `mib` MiB named `name` below `folder`, and mounts it.
    ///
    /// # Errors
    /// With a sentence, when the disk cannot be made or mounted.
    pub fn create(folder: &Path, name: &str, mib: u64) -> Result<Self, String> {
        let image = Self {
            file: folder.join(format!("{name}.img")),
            mount: folder.join(format!("{name}.mnt")),
        };
        fs::create_dir_all(&image.mount)
            .map_err(|error| format!("cannot make {}: {error}", image.mount.display()))?;
        File::create(&image.file)
            .and_then(|file| file.set_len(mib << 20))
            .map_err(|error| format!("cannot make {}: {error}", image.file.display()))?;
        image.format()?;
        image.attach()?;
        Ok(image)
    }

    fn format(&self) -> Result<(), String> {
        // No reserve for root: the node is root here, and its disk is to be full when it is full.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&self.file)]).map(drop)
    }

    fn attach(&self) -> Result<(), String> {
        let how = ["-o", "loop,noatime", text(&self.file), text(&self.mount)];
        run("mount", &how).map(drop)
    }

    fn detach(&self) -> Result<(), String> {
        let mut said = Ok(());
        until(Duration::from_secs(10), || {
            said = run("umount", &[text(&self.mount)]).map(drop);
            said.is_ok()
        });
        said
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The block device that it is mounted from, as in `/dev/loop3`.
    ///
    /// # Errors
    /// With a sentence, when it is not mounted.
    pub fn device(&self) -> Result<String, String> {
        let device = run("findmnt", &["-n", "-o", "SOURCE", text(&self.mount)])?;
        Ok(device.trim().to_owned())
    }

    /// Power off and on: what was not synced is gone.
    ///
    /// # Errors
    /// With a sentence, when the file system cannot be shut down or mounted again.
    pub fn power_cut(&self) -> Result<(), String> {
        self.power_off()?;
        self.power_on()
    }

    /// The first half of a power cut: from here nothing reaches the disk.
    ///
    /// # Errors
    /// With a sentence, when the file system cannot be shut down.
    pub fn power_off(&self) -> Result<(), String> {
        // Without -f: the log is not flushed.
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.mount)])?;
        // The tool says nothing when the file system does not know the call; a file that can be written says it.
        if File::create(self.mount.join("after-shutdown")).is_ok() {
            return Err(format!(
                "{} is not shut down: the power cut was none",
                self.mount.display()
            ));
        }
        Ok(())
    }

    /// The second half of a power cut.
    ///
    /// # Errors
    /// With a sentence, when what is left cannot be mounted.
    pub fn power_on(&self) -> Result<(), String> {
        self.detach()?;
        self.attach()
    }

    /// An empty disk in place of this one.
    ///
    /// # Errors
    /// With a sentence, when it cannot be made.
    pub fn wipe(&self) -> Result<(), String> {
        self.detach()?;
        self.format()?;
        self.attach()
    }

    /// Keeps a copy of the disk under a name, as a backup of the device would. The node's process must be gone.
    ///
    /// # Errors
    /// With a sentence, when it cannot be copied.
    pub fn save(&self, name: &str) -> Result<(), String> {
        self.detach()?;
        let copied = self.copy(&self.file, &self.saved(name));
        self.attach()?;
        copied
    }

    /// Puts a copy that was kept in the disk's place. The node's process must be gone.
    ///
    /// # Errors
    /// With a sentence, when there is none or it cannot be copied.
    pub fn restore(&self, name: &str) -> Result<(), String> {
        self.detach()?;
        let copied = self.copy(&self.saved(name), &self.file);
        self.attach()?;
        copied
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), String> {
        run("cp", &["--sparse=always", text(from), text(to)]).map(drop)
    }

    fn saved(&self, name: &str) -> PathBuf {
        self.file.with_extension(format!("img.{name}"))
    }

    /// Takes all room but `leave` bytes.
    ///
    /// # Errors
    /// With a sentence, when the room cannot be taken.
    pub fn fill(&self, leave: u64) -> Result<(), String> {
        let failed = |error| format!("cannot fill {}: {error}", self.mount.display());
        let free = self.free()?;
        let file = File::create(self.mount.join(BALLAST)).map_err(failed)?;
        let wanted = free.saturating_sub(leave);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, wanted)
            .map_err(|error| failed(error.into()))?;
        // A disk that was full when its power went is full when it is back.
        file.sync_all().map_err(failed)
    }

    /// Gives back what [`Self::fill`] took.
    ///
    /// # Errors
    /// With a sentence, when nothing was taken.
    pub fn free_ballast(&self) -> Result<(), String> {
        fs::remove_file(self.mount.join(BALLAST))
            .map_err(|error| format!("cannot free {}: {error}", self.mount.display()))
    }

    /// Bytes that are free.
    ///
    /// # Errors
    /// With a sentence, when it is not mounted.
    pub fn free(&self) -> Result<u64, String> {
        rustix::fs::statvfs(&self.mount)
            .map(|stat| stat.f_bavail * stat.f_frsize)
            .map_err(|error| format!("cannot ask {}: {error}", self.mount.display()))
    }

    /// Bytes that are taken.
    ///
    /// # Errors
    /// With a sentence, when it is not mounted.
    pub fn used(&self) -> Result<u64, String> {
        rustix::fs::statvfs(&self.mount)
            .map(|stat| (stat.f_blocks - stat.f_bfree) * stat.f_frsize)
            .map_err(|error| format!("cannot ask {}: {error}", self.mount.display()))
    }

    /// Bytes that files below a folder of the disk take whose names begin so.
    #[must_use]
    pub fn allocated(&self, folder: &str, begins: &str) -> u64 {
        let files = self.files(folder, "");
        let begin = |path: &&PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(begins))
        };
        let taken = |path: &PathBuf| fs::metadata(path).map_or(0, |it| it.blocks() * 512);
        files.iter().filter(begin).map(taken).sum()
    }

    /// Files below a folder of the disk whose name ends so, in order.
    #[must_use]
    pub fn files(&self, folder: &str, ends: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.mount.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if text(&path).ends_with(ends) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // The rest is the claim's to remove.
        drop(self.detach());
    }
}

/// Flips all bits of one byte of a file, on the disk and in the cache.
///
/// # Errors
/// With a sentence, when the file is shorter or cannot be changed.
pub fn flip(path: &Path, offset: u64) -> Result<(), String> {
    let failed =
        |error: std::io::Error| format!("cannot flip a byte of {}: {error}", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    file.read_exact(&mut byte).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    file.write_all(&[!byte[0]]).map_err(failed)?;
    file.sync_all().map_err(failed)
}
