//! What the scenarios stand on: a power cut that loses what was not synced and nothing else, and faults that are there when
//! they say so, and gone when they are healed.

use std::fs::{self, File};
use std::time::Duration;

use chaos_tests::faults::clock::WallClock;
use chaos_tests::faults::disk::{BadSync, Full, Sync};
use chaos_tests::faults::network::Links;
use chaos_tests::faults::pressure::{SlowDisk, SlowProcessor};
use chaos_tests::faults::process::{Frozen, Killed, Paused};
use chaos_tests::faults::{Fault, Injected};
use chaos_tests::rig::claim::Claim;
use chaos_tests::rig::image::{Image, flip};
use chaos_tests::rig::link::LinkSpec;
use chaos_tests::rig::{Rig, RigConfig};
use chaos_tests::scenario::Rules;
use chaos_tests::workload::Mix;
use tokio::time::Instant;

use crate::play::Play;

#[test]
#[ignore = "needs root: make chaos"]
fn a_power_cut_loses_what_was_not_synced_and_keeps_what_was() {
    let claim = Claim::take().expect("a claim");
    let disk = Image::create(claim.folder(), "disk", 128).expect("a disk");
    let (synced, unsynced) = (disk.path().join("synced"), disk.path().join("unsynced"));
    fs::write(&synced, "kept").unwrap();
    File::open(&synced).unwrap().sync_all().unwrap();
    File::open(disk.path()).unwrap().sync_all().unwrap();
    fs::write(&unsynced, "lost").unwrap();
    // And within a file whose name is on the disk already.
    let mut text = fs::read(&synced).unwrap();
    text.extend_from_slice(b" and more");
    fs::write(&synced, &text).unwrap();
    disk.power_cut().expect("a power cut");
    assert!(!unsynced.exists(), "what was not synced is there");
    let left = fs::read(&synced).unwrap();
    assert!(left != text, "what was not synced is there");
    fs::write(&synced, "kept").unwrap();
    File::open(&synced).unwrap().sync_all().unwrap();
    disk.power_cut().expect("a power cut");
    assert_eq!(fs::read(&synced).unwrap(), b"kept");
}

#[test]
#[ignore = "needs root: make chaos"]
fn a_disk_can_be_full_flipped_saved_restored_and_wiped() {
    let claim = Claim::take().expect("a claim");
    let disk = Image::create(claim.folder(), "disk", 128).expect("a disk");
    let file = disk.path().join("file");
    fs::write(&file, "old").unwrap();
    disk.save("then").expect("a copy");
    fs::write(&file, "new").unwrap();
    flip(&file, 1).expect("a flip");
    assert_eq!(fs::read(&file).unwrap(), [b'n', !b'e', b'w']);
    disk.fill(1 << 20).expect("a full disk");
    let large = vec![0; 4 << 20];
    assert!(fs::write(disk.path().join("large"), &large).is_err());
    disk.free_ballast().expect("room");
    fs::write(disk.path().join("large"), &large).unwrap();
    disk.fill(1 << 20).expect("a full disk");
    disk.power_cut().expect("a power cut");
    assert!(disk.free().expect("a disk") < 4 << 20, "it is full still");
    disk.free_ballast().expect("room");
    disk.restore("then").expect("the copy");
    assert_eq!(fs::read(&file).unwrap(), b"old");
    disk.wipe().expect("an empty disk");
    assert!(!file.exists());
}

/// Injects, waits until it did something, and heals.
async fn comes_and_goes(rig: &Rig, fault: &mut dyn Fault) {
    let label = fault.label();
    assert_eq!(fault.inject(rig), Injected::Installed, "{label}");
    let start = Instant::now();
    let mut met = fault.met(rig);
    let mut period = tokio::time::interval(Duration::from_millis(50));
    while !met.is_installed() && start.elapsed() < Duration::from_secs(5) {
        period.tick().await;
        met = fault.met(rig);
    }
    assert_eq!(met, Injected::Installed, "{label}");
    println!("{label}: met after {:?}", start.elapsed());
    assert_eq!(fault.heal(rig), Injected::Installed, "{label}");
    rig.until_ready(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn every_fault_takes_hold_under_load_and_can_be_taken_back() {
    let seed = crate::seed("rig");
    let config = RigConfig {
        clocks: true,
        ..RigConfig::new(&crate::pspd(), seed)
    };
    let mix = Mix {
        rate: 60,
        ..Mix::new(seed)
    };
    let play = Play::begin("rig", config, Rules::default(), mix).await;
    let lossy = LinkSpec {
        loss: 0.05,
        reorder: 0.1,
        duplicate: 0.02,
        corrupt: 0.01,
        ..LinkSpec::default()
    };
    let mut faults: Vec<Box<dyn Fault>> = vec![
        Box::new(Links::everywhere("all links lossy", 3, lossy)),
        Box::new(Links::deaf(0, 3)),
        Box::new(Links::far(1, 3, Duration::from_millis(20))),
        Box::new(Paused(1)),
        Box::new(Frozen::new(2)),
        Box::new(Killed(vec![0])),
        Box::new(BadSync::new(1, Sync::Waits(Duration::from_millis(50)))),
        Box::new(BadSync::new(2, Sync::Lies)),
        // Less than this little load takes on a fast machine.
        Box::new(SlowProcessor::new(0, 3)),
        Box::new(SlowDisk::new(1, 20)),
        Box::new(WallClock {
            node: 2,
            seconds: 3600,
        }),
        Box::new(Full {
            node: 1,
            leave: 64 << 20,
        }),
    ];
    for fault in &mut faults {
        play.scenario.note(&fault.label());
        play.scenario
            .cover(format!("{} was tried", fault.label()), true);
        comes_and_goes(&play.rig, fault.as_mut()).await;
    }
    play.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: make chaos"]
async fn a_delay_is_as_long_as_it_was_asked_for() {
    let rig = Rig::start(RigConfig::new(&crate::pspd(), crate::seed("delay"))).await;
    let took = async || {
        let mut times = Vec::new();
        for _ in 0..5 {
            let from = Instant::now();
            assert!(rig.is_ready(0).await);
            times.push(from.elapsed());
        }
        times.into_iter().min().expect("five times")
    };
    let near = took().await;
    let mut far = Links::far(0, 3, Duration::from_millis(40));
    far.inject(&rig);
    let slow = took().await;
    println!("near {near:?}, far {slow:?}");
    assert!(
        slow >= near + Duration::from_millis(75),
        "{near:?} {slow:?}"
    );
    far.heal(&rig);
    assert!(took().await < Duration::from_millis(60));
}
