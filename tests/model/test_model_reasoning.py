import torch

from recbole_stream.model.reasoning import ReasoningHead, nearest_token


class TestNearestToken:
    def test_the_largest_product_is_not_the_nearest(self):
        embeddings = torch.tensor([[1.0, 0.0], [10.0, 0.0], [0.0, 1.0]])
        # r = (2, 0): distances 1, 8 and sqrt 5, but products 2, 20 and 0
        # r = (6, 1): squared distances 26, 17 and 36
        # r = (-1, 0): distances 2, 11 and sqrt 2
        residuals = torch.tensor([[[2.0, 0.0], [6.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]])
        assert nearest_token(residuals, embeddings).tolist() == [[0, 1], [2, 2]]

    def test_equals_the_plain_distances(self):
        generator = torch.Generator().manual_seed(0)
        residuals, embeddings = torch.randn(20, 3, 8, generator=generator), torch.randn(50, 8, generator=generator)
        distance = (residuals[:, :, None] - embeddings).norm(dim=-1)
        assert torch.equal(nearest_token(residuals, embeddings), distance.argmin(-1))

    def test_autocast_does_not_round_the_distances(self):
        # products of about 200, where bfloat16 has steps of 1; squared distances 0 and .01
        embeddings = torch.tensor([[10.0, 1.0], [10.0, 1.1]])
        residuals = embeddings.clone()
        with torch.autocast("cpu", torch.bfloat16):
            assert nearest_token(residuals, embeddings).tolist() == [0, 1]


class TestReasoningHead:
    hidden = torch.tensor([[[1.0, 0.0], [2.0, -1.0], [0.5, 4.0]]])  # d_0, d_1, d_2
    target = torch.tensor([[3.0, 1.0]])

    def test_at_the_start_both_mlps_are_the_identity(self):
        head = ReasoningHead(2, "residual", "raw")
        # s_0 = d_0, s_1 = d_0 + d_1, s_2 = d_0 + d_1 + d_2
        states = head.states(self.hidden)
        assert states.tolist() == [[[1, 0], [3, -1], [3.5, 3]]]
        # r_1 = t - s_0, r_2 = t - s_1
        assert head.residuals(self.target, states[:, :2]).tolist() == [[[2, 1], [0, 2]]]

    def test_plain_mlps_are_not(self):
        torch.manual_seed(0)
        head = ReasoningHead(2, "plain", "raw")
        states = head.states(self.hidden)
        assert states[0, 0].tolist() == [1, 0]  # s_0 passes no MLP
        assert not torch.allclose(states[0, 1], torch.tensor([3.0, -1.0]))

    def set(self, mlp, inner, outer):
        with torch.no_grad():
            mlp.inner.weight.copy_(torch.tensor(inner))
            mlp.outer.weight.copy_(torch.tensor(outer))
            for layer in (mlp.inner, mlp.outer):
                layer.bias.zero_()

    def test_two_layers_by_hand(self):
        for kind, added in (("residual", 1.0), ("plain", 0.0)):
            head = ReasoningHead(2, kind, "raw")
            # MLP_s(x) = (relu(x_1), 2 relu(x_2)), MLP_r(x) = (relu(-x_1), relu(x_1))
            self.set(head.mlp_s, [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 2.0]])
            self.set(head.mlp_r, [[-1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
            states = head.states(self.hidden)
            # sums (3, -1) and (3.5, 3): MLP_s gives (3, 0) and (3.5, 6)
            assert states[0, 1].tolist() == [3 + added * 3, 0 - added]
            assert states[0, 2].tolist() == [3.5 + added * 3.5, 6 + added * 3]
            # t - s_0 = (2, 1): MLP_r gives (0, 2)
            assert head.residuals(self.target, states[:, :1])[0, 0].tolist() == [added * 2, 2 + added]

    def test_unit_brings_the_states_to_the_length_of_the_target(self):
        head = ReasoningHead(2, "residual", "unit")
        # t = (3, 4) has length 5; s_0 = (0, 2) becomes (0, 5), s_1 = (0, 2) + (6, 6) = (6, 8) becomes (3, 4)
        states = head.states(torch.tensor([[[0.0, 2.0], [6.0, 6.0]]]))
        residuals = head.residuals(torch.tensor([[3.0, 4.0]]), states)
        assert torch.allclose(residuals, torch.tensor([[[3.0, -1.0], [0.0, 0.0]]]), atol=1e-6)
