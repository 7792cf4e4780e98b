//! Against a real kube-apiserver: everything moves, and nothing changes.

use std::collections::BTreeMap;

use claviger::audit::object::Protection;
use serde_json::{Value, json};

use crate::serve;
use crate::stand::{RESOURCES, Stand, encryption};

/// The kinds of objects that are moved: path of the API, and key in etcd.
const OBJECTS: [(&str, &str); 7] = [
    (
        "/api/v1/namespaces/default/secrets/plain",
        "/registry/secrets/default/plain",
    ),
    (
        "/api/v1/namespaces/default/secrets/immutable",
        "/registry/secrets/default/immutable",
    ),
    (
        "/api/v1/namespaces/ending/secrets/late",
        "/registry/secrets/ending/late",
    ),
    (
        "/api/v1/namespaces/default/configmaps/plain",
        "/registry/configmaps/default/plain",
    ),
    (
        "/api/v1/namespaces/default/events/it.happened",
        "/registry/events/default/it.happened",
    ),
    (
        "/apis/example.com/v1/namespaces/default/widgets/one",
        "/registry/example.com/widgets/default/one",
    ),
    (
        "/apis/example.com/v1/planets/earth",
        "/registry/example.com/planets/earth",
    ),
];

fn fill(stand: &Stand) {
    let named = |name: &str| json!({"metadata": {"name": name}});
    stand.post("/api/v1/namespaces", &named("ending"));
    let secrets = "/api/v1/namespaces/default/secrets";
    let data = json!({"metadata": {"name": "plain"}, "data": {"a": "c2VjcmV0"}});
    stand.post(secrets, &data);
    let immutable = json!({"metadata": {"name": "immutable"}, "immutable": true});
    stand.post(secrets, &immutable);
    stand.post("/api/v1/namespaces/ending/secrets", &named("late"));
    let map = json!({"metadata": {"name": "plain"}, "data": {"a": "b"}});
    stand.post("/api/v1/namespaces/default/configmaps", &map);
    let event = json!({
        "metadata": {"name": "it.happened"}, "reason": "Test", "message": "it happened",
        "involvedObject": {"kind": "Secret", "namespace": "default", "name": "plain"},
    });
    stand.post("/api/v1/namespaces/default/events", &event);
    for (path, kind, name) in [
        (
            "/apis/example.com/v1/namespaces/default/widgets",
            "Kindwidgets",
            "one",
        ),
        ("/apis/example.com/v1/planets", "Kindplanets", "earth"),
    ] {
        let object = json!({
            "apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": name}, "size": 3,
        });
        stand.post(path, &object);
    }
    // Nobody is there who would end it, so that it stays like this.
    stand.send(
        "DELETE",
        "/api/v1/namespaces/ending",
        "application/json",
        "",
    );
    let ending = stand.get("/api/v1/namespaces/ending");
    assert_eq!(ending["status"]["phase"], "Terminating");
}

fn objects(stand: &Stand) -> BTreeMap<&'static str, Value> {
    let get = |(path, _)| (path, stand.get(path));
    OBJECTS.into_iter().map(get).collect()
}

/// The objects without what every write changes.
fn unversioned(objects: &BTreeMap<&'static str, Value>) -> BTreeMap<&'static str, Value> {
    let mut objects = objects.clone();
    for object in objects.values_mut() {
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.remove("resourceVersion").unwrap();
    }
    objects
}

fn key_ids(stand: &Stand) -> Vec<String> {
    let key_id = |(_, key): (_, &str)| match stand.protection(key) {
        Protection::KmsV2 { key_id, .. } => key_id,
        other => panic!("{key}: {other:?}"),
    };
    OBJECTS.into_iter().map(key_id).collect()
}

#[test]
fn after_a_rotation_every_kind_of_object_moves_once_and_reads_the_same() {
    let Some(stand) = Stand::start("write") else {
        return;
    };
    fill(&stand);
    let admin = stand.kubeconfig();
    let before = objects(&stand);
    let old = stand.claviger.key("primary").unwrap();
    assert_eq!(key_ids(&stand), vec![old.clone(); OBJECTS.len()]);

    let new = stand.rotate();
    let early = stand.migrate(&admin, &[]).exits(4);
    early.says(&["it is not safe yet", "next:  wait and run it again"]);
    assert_eq!(key_ids(&stand), vec![old.clone(); OBJECTS.len()]);
    stand.converged();

    let dry = stand.migrate(&admin, &["--dry-run"]).exits(3);
    let stale = dry.answer["stale"].as_u64().unwrap();
    assert!(stale >= OBJECTS.len() as u64, "{dry:?}");
    assert_eq!(dry.counts(), (0, 0, None));
    assert_eq!(objects(&stand), before);

    let moved = as_somebody_with_the_printed_role(&stand);
    assert_eq!(moved.counts(), (stale, 0, Some(0)), "{moved:?}");
    assert_eq!(key_ids(&stand), vec![new; OBJECTS.len()]);
    let after = objects(&stand);
    assert_eq!(unversioned(&after), unversioned(&before));
    assert_ne!(after, before);

    // Once more, and by name: nothing is rewritten.
    for arguments in [&[][..], &["--resume"], &["--key", &old]] {
        let again = stand.migrate(&admin, arguments).exits(0);
        assert_eq!(again.counts(), (0, 0, None), "{again:?}");
    }
    assert_eq!(objects(&stand), after);
}

/// Moves everything as somebody who may patch the encrypted resources, and do nothing else.
fn as_somebody_with_the_printed_role(stand: &Stand) -> crate::stand::Migrated {
    let rewriter = stand.kubeconfig_as("rewriter");
    let forbidden = stand.migrate(&rewriter, &[]).exits(2);
    forbidden.says(&["403 ", "kind: ClusterRole", "\"planets\", \"widgets\""]);
    let role = serve::answer(
        stand.claviger.dir(),
        &["print", "rbac", "--resources", RESOURCES],
    );
    assert!(
        !role.contains("\"get\"") && !role.contains("\"list\""),
        "{role}"
    );
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    stand.send("POST", roles, "application/yaml", &role);
    let binding = json!({
        "metadata": {"name": "claviger-migrate"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "claviger-migrate",
        },
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "rewriter",
        }],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    stand.post(bindings, &binding);
    crate::web::wait_until("the role is known to kube-apiserver", || {
        let moved = stand.migrate(&rewriter, &[]);
        (moved.code != Some(2)).then_some(moved)
    })
    .exits(0)
}

#[test]
fn plaintext_is_moved_without_a_keyring() {
    let Some(mut stand) = Stand::start("prepare") else {
        return;
    };
    fill(&stand);
    let before = objects(&stand);
    for (_, key) in OBJECTS {
        assert_eq!(stand.protection(key), Protection::Plaintext, "{key}");
    }
    stand
        .apiserver
        .set_encryption(&encryption(stand.claviger.dir(), "write"));
    stand.apiserver.restart();

    // A configuration whose keyring is elsewhere: this node has none.
    let dir = stand.dir.path().join("foreign");
    std::fs::create_dir(&dir).unwrap();
    let config = json!({
        "apiVersion": "claviger.io/v1alpha1", "kind": "ClavigerConfiguration",
        "storage": {"file": {"path": dir.join("keyring")}},
        "roots": [{"name": "local", "keyFile": {"path": dir.join("root.key")}}],
    });
    std::fs::write(dir.join("config.yaml"), config.to_string()).unwrap();
    let encryption = stand.dir.path().join("apiserver/encryption.yaml");
    let encryption = ["--encryption-config", encryption.to_str().unwrap()];
    let (url, admin) = (stand.etcd.url(), stand.kubeconfig_of_a_program());
    let migrate = |arguments: &[&str]| {
        crate::stand::migrate(&dir, &url, &admin, &[arguments, &encryption].concat())
    };

    migrate(&[])
        .exits(2)
        .says(&["nothing says which objects are stale", "--key"]);
    migrate(&["--key", "plaintext"])
        .exits(4)
        .says(&["--assume-converged"]);
    migrate(&["--key", "nobody", "--assume-converged"])
        .exits(2)
        .says(&["no stored value names nobody"]);
    let moved = migrate(&["--key", "plaintext", "--assume-converged"]).exits(0);
    let (rewritten, failed, left) = moved.counts();
    assert!(rewritten >= OBJECTS.len() as u64, "{moved:?}");
    assert_eq!((failed, left), (0, Some(0)));
    let key = stand.claviger.key("primary").unwrap();
    assert_eq!(key_ids(&stand), vec![key; OBJECTS.len()]);
    assert_eq!(unversioned(&objects(&stand)), unversioned(&before));
}
