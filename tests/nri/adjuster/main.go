// Adjuster is a plugin that adjusts and updates containers as configured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"berth.local/tests/nri/plugin"
	"github.com/containerd/nri/pkg/api"
)

type adjuster struct {
	plugin.Base
}

func (a *adjuster) CreateContainer(_ context.Context, _ *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	return a.Config.Adjust[container.GetName()], a.Config.Update[container.GetName()], nil
}

func (a *adjuster) UpdateContainer(_ context.Context, _ *api.PodSandbox, container *api.Container, _ *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	if a.Config.OnUpdate == nil {
		return nil, nil
	}
	linux := &api.LinuxContainerUpdate{Resources: a.Config.OnUpdate}
	return []*api.ContainerUpdate{{ContainerId: container.GetId(), Linux: linux}}, nil
}

// ask waits for the file Unsolicited, asks the runtime for the updates in it, and writes those that failed beside it.
func (a *adjuster) ask() {
	for path := a.Config.Unsolicited; path != ""; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var updates []*api.ContainerUpdate
		if err := json.Unmarshal(text, &updates); err != nil {
			plugin.Fail(err)
		}
		failed, err := a.Stub.UpdateContainers(updates)
		if err != nil {
			plugin.Fail(err)
		}
		answer, _ := json.Marshal(failed)
		if err := errors.Join(os.Remove(path), os.WriteFile(path+".part", answer, 0o600), os.Rename(path+".part", path+".failed")); err != nil {
			plugin.Fail(err)
		}
	}
}

// validator is an adjuster that also rejects adjustments of environment variables.
type validator struct {
	adjuster
}

func (v *validator) ValidateContainerAdjustment(_ context.Context, request *api.ValidateContainerAdjustmentRequest) error {
	if len(request.GetAdjust().GetEnv()) == 0 {
		return nil
	}
	return errors.New(v.Config.Reject)
}

func main() {
	a := &adjuster{}
	a.Flags()
	go a.ask()
	if a.Config.Reject != "" {
		v := &validator{adjuster: *a}
		v.Run(v)
	}
	a.Run(a)
}
