//! The ClusterRole that rewriting needs: the verb `patch` on the resources, and nothing else.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;

use crate::audit::object::Resource;
use crate::encryption_config::EncryptionConfiguration;

/// A ClusterRole that allows rewriting these resources, as YAML. `*` as a name or a group is every
/// one, as in an EncryptionConfiguration.
///
/// It says nothing of discovery, which `system:discovery` allows to everybody who is authenticated.
pub fn cluster_role(resources: &BTreeSet<Resource>) -> String {
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for resource in resources {
        let group = resource.group.as_deref().unwrap_or("*");
        groups.entry(group).or_default().insert(&resource.name);
    }
    let mut yaml = String::from(
        "apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: ClusterRole\n\
         metadata:\n  name: claviger-migrate\n\
         rules:\n",
    );
    for (group, names) in groups {
        let names = match names.contains("*") {
            true => "\"*\"".to_owned(),
            false => names.into_iter().map(quoted).collect::<Vec<_>>().join(", "),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            yaml,
            "- apiGroups: [{}]\n  resources: [{names}]\n  verbs: [\"patch\"]",
            quoted(group)
        );
    }
    yaml
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// What an EncryptionConfiguration encrypts, with its wildcards.
pub fn resources(config: &EncryptionConfiguration) -> BTreeSet<Resource> {
    let named = config.blocks.iter().flat_map(|block| &block.resources);
    named
        .map(|resource| Resource {
            name: resource.name.clone(),
            group: Some(resource.group.clone()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, group: Option<&str>) -> Resource {
        Resource {
            name: name.to_owned(),
            group: group.map(str::to_owned),
        }
    }

    #[test]
    fn one_rule_for_each_group() {
        let resources = [
            resource("secrets", Some("")),
            resource("configmaps", Some("")),
            resource("widgets", Some("example.com")),
            resource("futures", None),
        ];
        assert_eq!(
            cluster_role(&resources.into()),
            "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: claviger-migrate
rules:
- apiGroups: [\"\"]
  resources: [\"configmaps\", \"secrets\"]
  verbs: [\"patch\"]
- apiGroups: [\"*\"]
  resources: [\"futures\"]
  verbs: [\"patch\"]
- apiGroups: [\"example.com\"]
  resources: [\"widgets\"]
  verbs: [\"patch\"]
"
        );
    }

    #[test]
    fn wildcards_are_those_of_the_file() {
        let config = crate::encryption_config::parse(
            "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers: [{identity: {}}]
- resources: ['*.apps']
  providers: [{identity: {}}]
- resources: ['*.*']
  providers: [{identity: {}}]
",
        );
        let role = cluster_role(&resources(&config.unwrap()));
        for rule in [
            "[\"\"]\n  resources: [\"secrets\"]",
            "[\"apps\"]\n  resources: [\"*\"]",
            "[\"*\"]\n  resources: [\"*\"]",
        ] {
            assert!(role.contains(rule), "{rule} in {role}");
        }
    }
}
