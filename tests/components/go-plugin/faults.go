package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/kms/pkg/service"
)

// A fault spoils correct answers. A nil field leaves that call's answers as they are.
type fault struct {
	delay   time.Duration // before each answer
	status  func(*service.StatusResponse) error
	encrypt func(plaintext []byte, answer *service.EncryptResponse) error
	decrypt func(plaintext []byte, err error) ([]byte, error)
}

// The limits are kube-apiserver's (k8s.io/apiserver, kmsv2/envelope.go); each fault is one past its
// limit, so that a check off by one shows.
const (
	maxKeyID       = 1024
	maxCiphertext  = 1024
	maxAnnotations = 32 * 1024 // keys and values together
	minSeed        = 32
)

const okKey = "kms.example.org" // as an annotation's key

// faults are made anew in each process: some remember earlier answers.
var faults = map[string]fault{
	// Every call.
	"slow":         {delay: 4 * time.Second}, // the apiserver waits 3 s unless told otherwise
	"empty-key-id": keyIDFault(""),
	"long-key-id":  keyIDFault(strings.Repeat("k", maxKeyID+1)),

	// Status.
	"status-error":    statusFault(func(*service.StatusResponse) error { return errFault }),
	"healthz-not-ok":  statusFault(func(a *service.StatusResponse) error { a.Healthz = "no"; return nil }),
	"wrong-version":   statusFault(func(a *service.StatusResponse) error { a.Version = "v1"; return nil }),
	"version-changes": statusFault(versionChanges()),

	// Encrypt.
	"encrypt-error":        encryptFault(func(*service.EncryptResponse) error { return errFault }),
	"encrypt-other-key-id": encryptFault(func(a *service.EncryptResponse) error { a.KeyID += "-other"; return nil }),
	"encrypt-empty-key-id": encryptFault(func(a *service.EncryptResponse) error { a.KeyID = ""; return nil }),
	"empty-ciphertext":     encryptFault(func(a *service.EncryptResponse) error { a.Ciphertext = nil; return nil }),
	"long-ciphertext":      encryptFault(longCiphertext),
	"same-ciphertext":      encryptFault(sameCiphertext()),
	"bad-annotation-key":   encryptFault(annotated(okKey+"/slash", 1)),
	"long-annotations":     encryptFault(annotated(okKey, maxAnnotations+1-len(okKey))),
	"leaky-annotation":     {encrypt: leakyAnnotation},

	// Decrypt.
	"decrypt-error":       decryptFault(nil, errFault),
	"decrypt-short":       decryptFault(make([]byte, minSeed-1), nil),
	"decrypt-wrong-bytes": decryptFault(make([]byte, minSeed), nil),
	"decrypt-forged":      {decrypt: decryptForged},
}

var errFault = errors.New("this fault was asked for")

func keyIDFault(keyID string) fault {
	return fault{
		status:  func(a *service.StatusResponse) error { a.KeyID = keyID; return nil },
		encrypt: func(_ []byte, a *service.EncryptResponse) error { a.KeyID = keyID; return nil },
	}
}

func statusFault(spoil func(*service.StatusResponse) error) fault {
	return fault{status: spoil}
}

func encryptFault(spoil func(*service.EncryptResponse) error) fault {
	return fault{encrypt: func(_ []byte, a *service.EncryptResponse) error { return spoil(a) }}
}

func decryptFault(plaintext []byte, err error) fault {
	return fault{decrypt: func([]byte, error) ([]byte, error) { return plaintext, err }}
}

func longCiphertext(a *service.EncryptResponse) error {
	padding := max(0, maxCiphertext+1-len(a.Ciphertext))
	a.Ciphertext = append(a.Ciphertext, make([]byte, padding)...)
	return nil
}

func annotated(key string, size int) func(*service.EncryptResponse) error {
	return func(a *service.EncryptResponse) error {
		a.Annotations = map[string][]byte{key: make([]byte, size)}
		return nil
	}
}

// leakyAnnotation hands the plaintext to etcd in clear; everything still works.
func leakyAnnotation(plaintext []byte, a *service.EncryptResponse) error {
	a.Annotations = map[string][]byte{okKey: plaintext}
	return nil
}

// decryptForged answers a ciphertext that fails authentication as if it were good.
func decryptForged(plaintext []byte, err error) ([]byte, error) {
	if err != nil {
		return make([]byte, minSeed), nil
	}
	return plaintext, nil
}

// versionChanges answers v2 once and v2beta1 ever after; each alone would be accepted.
func versionChanges() func(*service.StatusResponse) error {
	var asked atomic.Bool
	return func(a *service.StatusResponse) error {
		if asked.Swap(true) {
			a.Version = "v2beta1"
		}
		return nil
	}
}

// sameCiphertext answers every Encrypt with the first one's ciphertext.
func sameCiphertext() func(*service.EncryptResponse) error {
	var once sync.Once
	var first []byte
	return func(a *service.EncryptResponse) error {
		once.Do(func() { first = a.Ciphertext })
		a.Ciphertext = first
		return nil
	}
}

func faultNames() string {
	return strings.Join(slices.Sorted(maps.Keys(faults)), ", ")
}

// withFaults wraps s in the named faults, each on top of those before it. Without names it is s.
func withFaults(s service.Service, names []string) (service.Service, error) {
	for _, name := range names {
		f, ok := faults[name]
		if !ok {
			return nil, fmt.Errorf("no fault %q; there are: %s", name, faultNames())
		}
		s = &faulty{s, f}
	}
	return s, nil
}

// faulty asks the service beneath and spoils its answer.
type faulty struct {
	beneath service.Service
	fault   fault
}

func (f *faulty) Status(ctx context.Context) (*service.StatusResponse, error) {
	if err := sleep(ctx, f.fault.delay); err != nil {
		return nil, err
	}
	answer, err := f.beneath.Status(ctx)
	if err != nil || f.fault.status == nil {
		return answer, err
	}
	return answer, f.fault.status(answer)
}

func (f *faulty) Encrypt(ctx context.Context, uid string, plaintext []byte) (*service.EncryptResponse, error) {
	if err := sleep(ctx, f.fault.delay); err != nil {
		return nil, err
	}
	answer, err := f.beneath.Encrypt(ctx, uid, plaintext)
	if err != nil || f.fault.encrypt == nil {
		return answer, err
	}
	return answer, f.fault.encrypt(plaintext, answer)
}

func (f *faulty) Decrypt(ctx context.Context, uid string, req *service.DecryptRequest) ([]byte, error) {
	if err := sleep(ctx, f.fault.delay); err != nil {
		return nil, err
	}
	plaintext, err := f.beneath.Decrypt(ctx, uid, req)
	if f.fault.decrypt == nil {
		return plaintext, err
	}
	return f.fault.decrypt(plaintext, err)
}

// sleep ends early, with an error, when the caller has gone.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
