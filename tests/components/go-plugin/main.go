// Command go-plugin is a foreign KMS v2 plugin: the service package of k8s.io/kms, AES-GCM in
// process, and nothing else. Its key is random, lives as long as the process, and is stored nowhere.
//
// Tests drive it as the plugin that somebody else wrote, with -fault as the one that somebody else
// got wrong; benchmarks take it, without -fault, as the least that a Go plugin costs.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/kms/pkg/service"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "go-plugin:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "", "`path` of the socket to make; @name for an abstract one")
	keyID := flag.String("key-id", "go-plugin-1", "key ID to report")
	var names []string
	flag.Func("fault", "misbehave as `name` says; may be repeated: "+faultNames(),
		func(name string) error { names = append(names, name); return nil })
	flag.Parse()
	if *listen == "" || flag.NArg() > 0 {
		return fmt.Errorf("want -listen PATH and flags only, got %q", os.Args[1:])
	}

	kms, err := newPlugin(*keyID)
	if err != nil {
		return err
	}
	served, err := withFaults(kms, names)
	if err != nil {
		return err
	}

	const handshake = 10 * time.Second
	server := service.NewGRPCService(*listen, handshake, served)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, server.Shutdown)
	return server.ListenAndServe()
}

// plugin answers correctly. It is safe for concurrent use.
type plugin struct {
	keyID string
	aead  cipher.AEAD
}

func newPlugin(keyID string) (*plugin, error) {
	key := make([]byte, 32)
	rand.Read(key) // never fails: crypto/rand ends the process instead
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &plugin{keyID: keyID, aead: aead}, nil
}

func (p *plugin) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: p.keyID}, nil
}

func (p *plugin) Encrypt(_ context.Context, _ string, plaintext []byte) (*service.EncryptResponse, error) {
	return &service.EncryptResponse{Ciphertext: p.aead.Seal(nil, nil, plaintext, nil), KeyID: p.keyID}, nil
}

func (p *plugin) Decrypt(_ context.Context, _ string, req *service.DecryptRequest) ([]byte, error) {
	if req.KeyID != p.keyID {
		return nil, fmt.Errorf("no key %q here", req.KeyID)
	}
	return p.aead.Open(nil, nil, req.Ciphertext, nil)
}
