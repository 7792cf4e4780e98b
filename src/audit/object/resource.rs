//! Which resource of the API an object is of, as its key in etcd says it.

use std::fmt;

use serde::Serialize;

/// A resource of the API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Its name in the plural.
    pub name: String,
    /// Its API group; empty is the core group. `None` where the key does not say it and we do not
    /// know the resource.
    pub group: Option<String>,
}

impl Resource {
    /// The resource whose objects lie under this kind of key.
    ///
    /// Source: `SpecialDefaultResourcePrefixes` of k8s.io/kubernetes, `pkg/kubeapiserver`; custom
    /// resources, CustomResourceDefinitions and APIServices lie under `GROUP/RESOURCE`.
    pub fn stored_under(kind: &str) -> Self {
        let known = |name: &str, group: &str| Self {
            name: name.to_owned(),
            group: Some(group.to_owned()),
        };
        match kind {
            "minions" => known("nodes", ""),
            "controllers" => known("replicationcontrollers", ""),
            "services/specs" => known("services", ""),
            "services/endpoints" => known("endpoints", ""),
            "ingress" => known("ingresses", "networking.k8s.io"),
            _ => match kind.split_once('/') {
                Some((group, name)) => known(name, group),
                None => match GROUPS.iter().find(|(_, names)| names.contains(&kind)) {
                    Some((group, _)) => known(kind, group),
                    None => Self {
                        name: kind.to_owned(),
                        group: None,
                    },
                },
            },
        }
    }

    /// Whether kube-apiserver keeps this for itself, never encrypted even by `*.*`.
    ///
    /// Source: `TestEncryptAll` of k8s.io/kubernetes, `test/integration/controlplane`.
    pub fn is_internal(&self) -> bool {
        self.group.is_none()
            && ["masterleases", "peerserverleases", "ranges"].contains(&self.name.as_str())
    }
}

impl fmt::Display for Resource {
    /// As kubectl has it: `secrets`, `leases.coordination.k8s.io`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name.escape_debug())?;
        match self.group.as_deref() {
            None | Some("") => Ok(()),
            Some(group) => write!(f, ".{}", group.escape_debug()),
        }
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The groups of Kubernetes' own resources, whose keys do not name them. Kubernetes 1.37.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "events",
            "limitranges",
            "namespaces",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "podtemplates",
            "resourcequotas",
            "secrets",
            "serviceaccounts",
        ],
    ),
    (
        "admissionregistration.k8s.io",
        &[
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ],
    ),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "deployments",
            "replicasets",
            "statefulsets",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    (
        "certificates.k8s.io",
        &[
            "certificatesigningrequests",
            "clustertrustbundles",
            "podcertificaterequests",
        ],
    ),
    ("coordination.k8s.io", &["leasecandidates", "leases"]),
    ("discovery.k8s.io", &["endpointslices"]),
    (
        "flowcontrol.apiserver.k8s.io",
        &["flowschemas", "prioritylevelconfigurations"],
    ),
    ("internal.apiserver.k8s.io", &["storageversions"]),
    (
        "networking.k8s.io",
        &[
            "ingressclasses",
            "ingresses",
            "ipaddresses",
            "networkpolicies",
            "servicecidrs",
        ],
    ),
    ("node.k8s.io", &["runtimeclasses"]),
    ("policy", &["poddisruptionbudgets"]),
    (
        "rbac.authorization.k8s.io",
        &[
            "clusterrolebindings",
            "clusterroles",
            "rolebindings",
            "roles",
        ],
    ),
    (
        "resource.k8s.io",
        &[
            "deviceclasses",
            "devicetaintrules",
            "resourceclaims",
            "resourceclaimtemplates",
            "resourceslices",
        ],
    ),
    ("scheduling.k8s.io", &["priorityclasses"]),
    (
        "storage.k8s.io",
        &[
            "csidrivers",
            "csinodes",
            "csistoragecapacities",
            "storageclasses",
            "volumeattachments",
            "volumeattributesclasses",
        ],
    ),
    ("storagemigration.k8s.io", &["storageversionmigrations"]),
];
