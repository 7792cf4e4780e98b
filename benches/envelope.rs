//! What one call costs the keystore: sealing a seed, opening it, and finding its key.
//!
//! `cargo bench --bench envelope`

use std::hint::black_box;
use std::sync::Arc;

use claviger_keystore::key::KeyId;
use claviger_keystore::keyring::Keyring;
use claviger_keystore::snapshot::Snapshot;
use claviger_keystore::testing::{NOW, open_keystore};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use zeroizing_alloc::ZeroAlloc;

// As the program has it: every block is wiped when it is freed.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

/// What kube-apiserver has wrapped.
const SEED: [u8; 32] = [7; 32];

type Failure = Box<dyn std::error::Error>;

/// A keyring of `keys` keys as requests see it. The first key is retired unless it is the only one.
fn snapshot(keys: usize) -> Result<(Arc<Snapshot>, KeyId), Failure> {
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let (keystore, _) = open_keystore().await;
        let oldest = keystore
            .view()
            .snapshot()
            .and_then(|snapshot| snapshot.primary());
        let oldest = oldest.map_err(|refusal| format!("{refusal:?}"))?;
        keystore
            .commit(NOW, |keyring| (1..keys).try_fold(keyring.clone(), rotated))
            .await?;
        let snapshot = keystore.view().snapshot().cloned();
        Ok((snapshot.map_err(|refusal| format!("{refusal:?}"))?, oldest))
    })
}

fn rotated(keyring: Keyring, _: usize) -> Result<Keyring, claviger_keystore::error::Error> {
    let staged = keyring.stage(NOW)?;
    match staged.staged() {
        Some(id) => Ok(staged.activate(&id, NOW)?),
        None => Ok(staged),
    }
}

fn seal_and_open(criterion: &mut Criterion) -> Result<(), Failure> {
    let (snapshot, id) = snapshot(1)?;
    let sealed = snapshot
        .seal(&id, &SEED)
        .map_err(|refusal| format!("{refusal:?}"))?;
    let mut group = criterion.benchmark_group("seed of 32 bytes");
    group.throughput(Throughput::Elements(1));
    // Sealing includes a nonce from the kernel, and opening the result again.
    group.bench_function("seal", |b| b.iter(|| snapshot.seal(&id, black_box(&SEED))));
    group.bench_function("open", |b| {
        b.iter(|| snapshot.open(&id, black_box(&sealed)))
    });
    group.finish();
    Ok(())
}

fn look_up(criterion: &mut Criterion) -> Result<(), Failure> {
    let mut group = criterion.benchmark_group("look-up by key id");
    for keys in [1, 10, 1_000] {
        let (snapshot, oldest) = snapshot(keys)?;
        let found = snapshot.states().count();
        if found != keys || !snapshot.knows(&oldest) {
            return Err(format!("the keyring has {found} keys instead of {keys}").into());
        }
        group.bench_function(BenchmarkId::from_parameter(keys), |b| {
            b.iter(|| snapshot.may_seal(black_box(&oldest)));
        });
        let text = oldest.to_string();
        group.bench_function(BenchmarkId::new("with its text", keys), |b| {
            b.iter(|| {
                black_box(&text)
                    .parse::<KeyId>()
                    .is_ok_and(|id| snapshot.knows(&id))
            });
        });
    }
    group.finish();
    Ok(())
}

/// Criterion's groups take functions that cannot fail.
#[expect(
    clippy::panic,
    reason = "without a keyring there is nothing to measure"
)]
fn every(criterion: &mut Criterion) {
    if let Err(failure) = seal_and_open(criterion).and_then(|()| look_up(criterion)) {
        panic!("making the keyring: {failure}");
    }
}

criterion_group!(benches, every);
criterion_main!(benches);
