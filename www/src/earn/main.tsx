import { render } from 'preact';
import { Earn } from './app.tsx';
import '../style.css';

const root = document.getElementById('app');
if (root) render(<Earn />, root);
