// Command kube_object prints the vectors of kube_object.json: objects as kube-apiserver's own code
// stores them, each opened again by that code before it is printed.
//
//	go run . > ../kube_object.json
//
// The seeds, data keys and nonces are random, so no two runs print the same.
package main

import (
	"context"
	"crypto/aes"
	"encoding/hex"
	"encoding/json"
	"log"
	"os"

	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
)

type vector struct {
	Name      string `json:"name"`
	Seed      string `json:"seed"`
	SeedKind  int    `json:"seedKind"`
	EtcdKey   string `json:"etcdKey"`
	Data      string `json:"data"`
	Plaintext string `json:"plaintext"`
}

func main() {
	log.SetFlags(0)
	var vectors []vector
	for _, kind := range []struct {
		name   string
		kind   int
		length int
	}{
		{"a key of Kubernetes 1.27", 0, 32},
		{"a key for AES-192", 0, 24},
		{"a key for AES-128", 0, 16},
		{"a seed", 1, 32},
		{"a longer seed", 1, 48},
	} {
		for _, plaintext := range []string{"", "k8s\x00\n\x0c\n\x02v1\x12\x06Secret"} {
			vectors = append(vectors, sealed(kind.name, kind.kind, kind.length, plaintext))
		}
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(map[string]any{
		"comment": "Made by kube_object/main.go with k8s.io/apiserver's own code.",
		"valid":   vectors,
	}); err != nil {
		log.Fatal(err)
	}
}

func sealed(name string, kind, length int, plaintext string) vector {
	seed, err := aestransformer.GenerateKey(length)
	if err != nil {
		log.Fatal(err)
	}
	const key = "/registry/secrets/prod/db"
	place := value.DefaultContext(key)
	data, err := transformer(kind, seed).TransformToStorage(context.Background(), []byte(plaintext), place)
	if err != nil {
		log.Fatal(err)
	}
	opened, _, err := transformer(kind, seed).TransformFromStorage(context.Background(), data, place)
	if err != nil || string(opened) != plaintext {
		log.Fatalf("%s: %q, %v", name, opened, err)
	}
	return vector{name, hex.EncodeToString(seed), kind, key, hex.EncodeToString(data), hex.EncodeToString([]byte(plaintext))}
}

// transformer is what the envelope transformer of KMS v2 makes of a seed that a plugin opened.
func transformer(kind int, seed []byte) value.Transformer {
	if kind == 1 {
		transformer, err := aestransformer.NewHKDFExtendedNonceGCMTransformer(seed)
		if err != nil {
			log.Fatal(err)
		}
		return transformer
	}
	block, err := aes.NewCipher(seed)
	if err != nil {
		log.Fatal(err)
	}
	transformer, err := aestransformer.NewGCMTransformer(block)
	if err != nil {
		log.Fatal(err)
	}
	return transformer
}
